"""A droplet without cloud-init's user data first admits only root (docs/getting-started.md, "Adopting").

Even if the first converge dies, at any moment, root or the operator can still log in.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from deploys.components import ssh
from tests.lab import keys, machine
from tests.lab.layout import by_name
from tests.support import converge
from tests.support.environment import Environment

pytestmark = pytest.mark.group("edge")

ROOT, OPERATOR = "root", "deploy"
AS_ROOT = ("--ssh-user", ROOT)
DIES = {
    "operator | Allow the operator to become root": ROOT,
    "hardening | Set a strict umask and a timeout for shells": ROOT,
    "ssh | Install the systemd units that revert a change": ROOT,
    "ssh | Start sshd": OPERATOR,
}
"""The operations at whose start a test kills the converge, each with the account that can still log in."""


def at_the_console(droplet: Host, command: str) -> None:
    machine.inside(by_name(droplet.backend.get_hostname()), "sh", "-c", command)


def admitted(lab: Environment, droplet: Host) -> set[str]:
    """Return the accounts that can open a new connection and become root."""
    anew = ["ssh", "-F", lab.data["ssh_config_file"], "-o", "ControlPath=none", "-o", "BatchMode=yes"]
    return {
        user
        for user in (ROOT, OPERATOR)
        if subprocess.run(
            [*anew, "-o", f"User={user}", droplet.backend.get_hostname(), "sudo -n true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        ).returncode
        == 0
    }


@pytest.fixture(autouse=True)
def _root_s(lab: Environment, droplet: Host) -> Iterator[None]:
    """Remove the operator, so that only root can log in. The rest of the site stays, so that converges are fast."""
    known, roots = keys.public(keys.IDENTITY), "/root/.ssh/authorized_keys"
    at_the_console(
        droplet,
        f"rm -f /etc/sudoers.d/{OPERATOR} {ssh.drop_in(lab.settings)}; userdel --force --remove {OPERATOR} 2>&1; "
        f"install -D -m 600 /dev/null {roots} && echo '{known}' >{roots} && systemctl restart ssh.service",
    )
    assert admitted(lab, droplet) == {ROOT}
    yield
    if ROOT in admitted(lab, droplet):
        converge.site(*AS_ROOT)
    at_the_console(droplet, f"rm {roots}")
    lab.reconnect(droplet.backend.get_hostname())


def test_the_user_who_can_log_in_finishes_the_adoption(lab: Environment, droplet: Host) -> None:
    for moment, gets_in in DIES.items():
        with converge.start(*AS_ROOT) as adopting:
            assert adopting.stdout
            converge.wait_for(adopting.stdout, moment)
            adopting.kill()
        assert admitted(lab, droplet) == {gets_in}, moment
    converge.site()
    assert admitted(lab, droplet) == {OPERATOR}
    assert converge.planned() == set()


def test_root_comes_back_when_the_operator_s_own_key_was_forgotten(
    lab: Environment, droplet: Host, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "another"], check=True)
    said = converge.failing_site(*AS_ROOT, "--data", f"authorized_keys={tmp_path}/another.pub")
    assert "no new login succeeded" in said
    assert admitted(lab, droplet) == set()
    # Without this call, the droplet reverts the trial after two minutes (test_lockout.py).
    at_the_console(droplet, "stackctl trial undo ssh")
    assert admitted(lab, droplet) == {ROOT}
    converge.site(*AS_ROOT)
    assert admitted(lab, droplet) == {OPERATOR}
