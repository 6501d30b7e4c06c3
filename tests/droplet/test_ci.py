"""CI's account on the droplet: sudo and the gate allow only status, release and rollback.

An environment without a key for CI has no account for CI. converge/test_ci.py uses the key over SSH.
converge/test_ci.py runs only in the lab, because in other environments its failed logins would ban the operator's
address.
"""

from __future__ import annotations

import json

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from deploys import build
from deploys.components.ci import HOME, KEYS, SUDOERS, authorized_keys
from deploys.config.values import CI_LOGIN
from tests.support.environment import Environment

pytestmark = pytest.mark.group("app")

GATE = "/usr/local/bin/stackctl gate --"


@pytest.fixture
def declared(env: Environment) -> bool:
    return bool(env.settings.ci_keys)


def sudo_of_ci(droplet: Host, arguments: str) -> CommandResult:
    """Run a command with sudo as CI's account. SSH would allow only the gate."""
    return droplet.run(f"sudo -n -u {CI_LOGIN} sudo -n {arguments} || exit 1")  # 255 is SSH's own exit code


def test_ci_cannot_change_its_own_access(droplet: Host, declared: bool) -> None:  # noqa: FBT001
    found = droplet.run(f"find {HOME} -printf '%p %y %m %u %g\\n'").stdout.splitlines()
    if declared:
        assert set(found) == {
            f"{HOME} d 755 root root",
            f"{HOME}/.ssh d 755 root root",
            f"{KEYS} f 644 root root",
        }
        assert droplet.check_output(f"id -Gn {CI_LOGIN}") == CI_LOGIN
        assert droplet.check_output(f"passwd --status {CI_LOGIN}").split()[1] == "L"  # L: the password is locked
    else:
        assert found == []
        assert droplet.run(f"getent passwd {CI_LOGIN}").rc != 0


def test_every_key_of_ci_has_the_forced_command(droplet: Host, env: Environment, declared: bool) -> None:  # noqa: FBT001
    assert droplet.file(KEYS).exists == declared
    if declared:
        assert droplet.file(KEYS).content == authorized_keys(env.settings)


def test_sudo_allows_the_gate_and_nothing_else(droplet: Host, declared: bool) -> None:  # noqa: FBT001
    allowed = droplet.run(f"sudo -l -U {CI_LOGIN}").stdout.partition("may run the following commands")[2]
    assert [line.strip() for line in allowed.splitlines()[1:]] == ([f"(root) NOPASSWD: {GATE} *"] if declared else [])
    assert droplet.file(SUDOERS).exists == declared
    if declared:
        assert droplet.file(SUDOERS).content == build.file("ci/sudoers")


def test_the_gate_shows_status(droplet: Host, env: Environment, declared: bool) -> None:  # noqa: FBT001
    told = droplet.run(f"sudo -n -u {CI_LOGIN} sudo -n {GATE} 'status --json' || true").stdout
    assert (json.loads(told)["app"] == env.settings.values.app) if declared else told == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "id",
        "-s",
        "-e /etc/passwd",
        "/usr/local/bin/stackctl status",
        "/usr/local/bin/stackctl exec id",
        "/usr/local/bin/stackctl --lock-id x gate -- status",
        "/usr/local/bin/stackctl 'gate -- status'",
        "/usr/local/bin/stackctl gate '-- status'",
        "/usr/local/bin/stackctl gate status",
        f"{GATE}",
        f"{GATE} status --json",
        f"{GATE} -- status",
        f"{GATE} --help",
        f"{GATE} exec id",
        f"{GATE} 'exec id'",
        f"{GATE} 'status --lock-id x'",
        f"{GATE} 'release --follow --id x'",
        f"{GATE} release --follow --id {'0' * 32}",
        f"-E {GATE} status",
        f"PYTHONPATH=/tmp {GATE} status",
        f"-D /tmp {GATE} status",
        f"-u deploy {GATE} status",
        f"-g docker {GATE} status",
    ],
)
def test_sudo_refuses_everything_else_to_ci(droplet: Host, arguments: str) -> None:
    ran = sudo_of_ci(droplet, arguments)
    assert ran.rc != 0
    assert ran.stdout == ""
