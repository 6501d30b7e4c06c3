"""CI's key releases, rolls back and asks for status: nothing else gets past sshd, sudo and the gate.

The lab has CI's private key, and these checks log in with it. Elsewhere nobody here has it: what is tried over SSH
fails at the door, and what lies behind it is looked at from the droplet. A place without a key for CI has no account.
"""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from deploys import artifacts
from deploys.components.ci import HOME, KEYS, LOGIN, SUDOERS, authorized_keys
from tests.places import ROOT, Place

pytestmark = pytest.mark.group("app")

GATE = "/usr/local/bin/stackctl gate --"
NO_CONNECTION = 255


@pytest.fixture
def declared(place: Place) -> bool:
    return bool(place.settings.ci_keys)


def options(place: Place) -> list[str]:
    key = ["-i", str(ROOT / ".lab/ci_ed25519")] if place.name == "lab" else []
    return ["-F", place.data["ssh_config_file"], *key, "-o", "BatchMode=yes", "-o", f"User={LOGIN}"]


def ssh(place: Place, droplet: Host, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["ssh", *options(place), *words[:-1], droplet.backend.get_hostname(), words[-1]]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def sudo_of_ci(droplet: Host, arguments: str) -> CommandResult:
    """What the account could say to sudo, if the forced command were out of the way."""
    return droplet.run(f"sudo -n -u {LOGIN} sudo -n {arguments} || exit 1")  # 255 would be SSH's own


def test_the_account_cannot_change_how_it_is_let_in(droplet: Host, declared: bool) -> None:  # noqa: FBT001
    found = droplet.run(f"find {HOME} -printf '%p %y %m %u %g\\n'").stdout.splitlines()
    if declared:
        assert set(found) == {
            f"{HOME} d 755 root root",
            f"{HOME}/.ssh d 755 root root",
            f"{KEYS} f 644 root root",
        }
        assert droplet.check_output(f"id -Gn {LOGIN}") == LOGIN
        assert droplet.check_output(f"passwd --status {LOGIN}").split()[1] == "L"  # no password to guess
    else:
        assert found == []
        assert droplet.run(f"getent passwd {LOGIN}").rc != 0


def test_every_key_is_behind_the_forced_command(droplet: Host, place: Place, declared: bool) -> None:  # noqa: FBT001
    assert droplet.file(KEYS).exists == declared
    if declared:
        assert droplet.file(KEYS).content == authorized_keys(place.settings)


def test_sudo_allows_the_gate_and_nothing_else(droplet: Host, declared: bool) -> None:  # noqa: FBT001
    allowed = droplet.run(f"sudo -l -U {LOGIN}").stdout.partition("may run the following commands")[2]
    assert [line.strip() for line in allowed.splitlines()[1:]] == ([f"(root) NOPASSWD: {GATE} *"] if declared else [])
    assert droplet.file(SUDOERS).exists == declared
    if declared:
        assert droplet.file(SUDOERS).content == artifacts.file("ci/sudoers")


def test_the_gate_tells_status(droplet: Host, place: Place, declared: bool) -> None:  # noqa: FBT001
    told = droplet.run(f"sudo -n -u {LOGIN} sudo -n {GATE} 'status --json' || true").stdout
    assert (json.loads(told)["app"] == place.settings.values.app) if declared else told == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "id",
        "-s",
        "-e /etc/passwd",
        "/usr/local/bin/stackctl status",
        "/usr/local/bin/stackctl exec id",
        "/usr/local/bin/stackctl --under x gate -- status",
        "/usr/local/bin/stackctl 'gate -- status'",
        "/usr/local/bin/stackctl gate '-- status'",
        "/usr/local/bin/stackctl gate status",
        f"{GATE}",
        f"{GATE} status --json",
        f"{GATE} -- status",
        f"{GATE} --help",
        f"{GATE} exec id",
        f"{GATE} 'exec id'",
        f"{GATE} 'status --under x'",
        f"-E {GATE} status",
        f"PYTHONPATH=/tmp {GATE} status",
        f"-D /tmp {GATE} status",
        f"-u deploy {GATE} status",
        f"-g docker {GATE} status",
    ],
)
def test_whatever_else_it_says_to_sudo_is_refused(droplet: Host, arguments: str) -> None:
    ran = sudo_of_ci(droplet, arguments)
    assert ran.rc != 0
    assert ran.stdout == ""


def test_the_key_is_told_status(droplet: Host, place: Place) -> None:
    """The control of what follows: in the lab the key does open the door."""
    ran = ssh(place, droplet, "status --json")
    if place.name == "lab":
        assert json.loads(ran.stdout)["app"] == place.settings.values.app
    else:
        assert (ran.returncode, ran.stdout) == (NO_CONNECTION, "")


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "id",
        "bash",
        "release --under x 1.0",
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
def test_the_key_gets_nothing_else(droplet: Host, place: Place, asked: str) -> None:
    ran = ssh(place, droplet, asked)
    assert ran.stdout == ""
    if place.name == "lab":
        assert ran.returncode == 2
        assert "release TAG" in ran.stderr
    else:
        assert ran.returncode == NO_CONNECTION


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-W", "127.0.0.1:22", ""), "administratively prohibited"),
        (("-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", ""), "remote port forwarding failed"),
        (("-tt", "status"), "PTY allocation request failed"),
    ],
)
def test_the_key_gets_no_tunnel_and_no_terminal(droplet: Host, place: Place, words: tuple[str, ...], said: str) -> None:
    ran = ssh(place, droplet, *words)
    assert ran.returncode == NO_CONNECTION
    assert (said if place.name == "lab" else "Permission denied") in ran.stderr


@pytest.mark.parametrize("program", ["sftp -b /dev/null", "scp", "scp -O"])
def test_the_key_gets_no_file(droplet: Host, place: Place, program: str) -> None:
    wanted = f"{droplet.backend.get_hostname()}:/etc/hostname"
    command = [*shlex.split(program), *options(place), wanted, "/dev/null"]
    ran = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "usage:" not in ran.stderr
