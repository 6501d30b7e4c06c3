"""CI's key may ask for status, a release and a rollback over SSH, and nothing else.

Only the lab has the private key.
"""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from testinfra.host import Host

from deploys.config.values import CI_LOGIN
from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("app")

REFUSED = 2
NO_CONNECTION = 255


def run(program: str, env: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    key = ["-i", str(ROOT / ".lab/ci_ed25519"), "-o", f"User={CI_LOGIN}"]
    command = [*shlex.split(program), "-F", env.data["ssh_config_file"], *key, "-o", "BatchMode=yes", *words]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def ssh(env: Environment, droplet: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return run("ssh", env, *words[:-1], droplet.backend.get_hostname(), words[-1])


def test_the_key_gets_status(lab: Environment, droplet: Host) -> None:
    """Control for the refusals below: sshd accepts the key."""
    assert json.loads(ssh(lab, droplet, "status --json").stdout)["app"] == lab.settings.values.app


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "id",
        "bash",
        "release --lock-id x 1.0",
        "release 1.0 --id x",
        "release --follow --id $(id)",
        "exec id",
        "maintenance on",
        "status; id",
        "status --json\nexec id",
        "status $(id)",
        'status"; id; echo "',
        "/usr/lib/openssh/sftp-server",
        "scp -f /etc/hostname",
    ],
)
def test_the_key_gets_nothing_else(lab: Environment, droplet: Host, asked: str) -> None:
    ran = ssh(lab, droplet, asked)
    assert (ran.returncode, ran.stdout) == (REFUSED, "")
    assert "release TAG" in ran.stderr


def test_the_key_is_told_that_a_request_of_its_own_started_nothing(lab: Environment, droplet: Host) -> None:
    ran = ssh(lab, droplet, f"release --follow --id {'0' * 32}")
    assert (ran.returncode, ran.stdout) == (REFUSED, "")
    assert f"no run has the ID {'0' * 32}" in ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-W", "127.0.0.1:22", ""), "administratively prohibited"),
        (("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", ""), "remote port forwarding failed"),
        (("-tt", "status"), "PTY allocation request failed"),
    ],
)
def test_the_key_gets_no_tunnel_and_no_terminal(
    lab: Environment, droplet: Host, words: tuple[str, ...], said: str
) -> None:
    ran = ssh(lab, droplet, *words)
    assert ran.returncode == NO_CONNECTION
    assert said in ran.stderr


@pytest.mark.parametrize("program", ["sftp -b /dev/null", "scp", "scp -O"])
def test_the_key_gets_no_file(lab: Environment, droplet: Host, program: str) -> None:
    ran = run(f"{program} -v", lab, f"{droplet.backend.get_hostname()}:/etc/hostname", "/dev/null")
    assert ran.returncode != 0
    assert f"Exit status {REFUSED}\n" in ran.stderr, "the refusal did not come from the gate"
