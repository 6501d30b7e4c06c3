"""Clients that are not logged in cannot keep the operator from logging in."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.lab.layout import CHECKOUT
from tests.support.environment import Environment
from tests.support.probes import addresses_of_one_network, machine_of, pardon
from tests.system.attack.conftest import Serving

pytestmark = pytest.mark.group("everywhere")

IDLE = Path(__file__).with_name("idle.py").read_text()
ADDRESSES, EACH, LOGINS = 16, 4, 8
HELD_S = 14
"""The seconds of the attack, which are fewer than sshd's `LoginGraceTime`."""
PER_SOURCE = 5
"""The value of PerSourceMaxStartups."""


def test_idle_connections_from_one_network_while_an_operator_logs_in(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Callable[..., None]
) -> None:
    """Each of 16 addresses in one /64 opens four connections. Four is below the limit for a single address."""
    for _ in serving.attacks():
        held, logins = attacked(attacker, droplet, lab)
        assert logins == LOGINS
        assert held <= PER_SOURCE
    with serving.defence_out(), by_address(droplet, lab):
        control_held, control = attacked(attacker, droplet, lab)
    pardon(droplet)
    assert control_held > 40
    assert control < LOGINS
    result(
        "idle connections from one /64",
        got=f"{held} held, {logins} of {LOGINS} logins",
        control=f"{control_held} held, {control} of {LOGINS} logins",
    )


def attacked(attacker: Host, droplet: Host, lab: Environment) -> tuple[int, int]:
    """Return how many connections the attacker still holds at the end, and how many logins of the operator succeed."""
    config = str(lab.data["ssh_config_file"])
    name = droplet.backend.get_hostname()
    with addresses_of_one_network(attacker, droplet, ADDRESSES) as own:
        program = ["python3", "-c", IDLE, str(machine_of(droplet).ipv6), str(EACH), str(HELD_S), *own]
        to_attacker = ["ssh", "-F", config, attacker.backend.get_hostname(), f"sudo {shlex.join(program)}"]
        with subprocess.Popen(to_attacker, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as attack:
            assert attack.stdout
            assert attack.stdout.readline().strip() == "holding"
            began = time.monotonic()
            logins = sum(logs_in(config, name) for _ in range(LOGINS))
            assert time.monotonic() - began < HELD_S, "the attack ended before the last login"
            return int(attack.stdout.readline()), logins


def logs_in(config: str, name: str) -> bool:
    """Return whether the operator can log in over a new connection."""
    login = ["ssh", "-F", config, "-o", "ControlPath=none", "-o", "ConnectTimeout=5", name, "true"]
    return subprocess.run(login, cwd=CHECKOUT, capture_output=True, check=False).returncode == 0


@contextmanager
def by_address(droplet: Host, lab: Environment) -> Iterator[None]:
    """Make sshd count each IPv6 address separately, which is sshd's default.

    The restart also clears sshd's penalties.
    """
    drop_in = f"/etc/ssh/sshd_config.d/00-{lab.settings.values.app}.conf"
    restart = "sshd -t && systemctl restart ssh.service"
    droplet.check_output(
        f"sed -i 's/^PerSourceNetBlockSize 32:64$/PerSourceNetBlockSize 32:128/' {drop_in} && {restart}"
    )
    assert "persourcenetblocksize 32:128" in droplet.check_output("sshd -T")
    try:
        yield
    finally:
        time.sleep(1)
        droplet.check_output(
            f"sed -i 's/^PerSourceNetBlockSize 32:128$/PerSourceNetBlockSize 32:64/' {drop_in} && {restart}"
        )
