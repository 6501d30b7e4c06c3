"""fail2ban bans clients that guess or probe, on all ports, and each ban of a client is longer than the last.

fail2ban spares trusted addresses.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab.layout import NEIGHBOUR
from tests.support.environment import Environment
from tests.support.probes import guess_at_ssh, machine_of, pardon

pytestmark = pytest.mark.group("edge")

PROGRAM = (Path(__file__).parent / "ask_often.py").read_text()
STRANGER = str(NEIGHBOUR.ipv4)
OFTEN, A_LITTLE = 110, 30


def banned(droplet: Host, jail: str) -> set[str]:
    return set(droplet.check_output(f"fail2ban-client get {jail} banip").split())


def ban_time(droplet: Host) -> int | None:
    """Return how many seconds the stranger's ban lasts."""
    shown = droplet.check_output("fail2ban-client get sshd banip --with-time")
    found = re.search(rf"^{re.escape(STRANGER)}\s.*\+ (\d+) =", shown, re.MULTILINE)
    return int(found[1]) if found else None


def reaches(outside: Host, address: object, port: int) -> bool:
    return bool(outside.run(f"nc -z -w 2 {address} {port}").rc == 0)


@pytest.fixture(autouse=True)
def known_for_nothing(droplet: Host, outside: Host) -> Iterator[None]:
    """Remove the clients' bans and failures before and after each test."""
    pardon(droplet)
    yield
    pardon(droplet)
    assert reaches(outside, machine_of(droplet).ipv4, 443)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait up to ten seconds until the condition holds, because fail2ban works about once a second."""
    for _ in range(20):
        if holds():
            return
        time.sleep(0.5)
    assert holds()


def ask_often(outside: Host, address: object, env: Environment, times: int = OFTEN) -> Any:
    domain = env.settings.values.domain
    return json.loads(outside.check_output(f"python3 -c {shlex.quote(PROGRAM)} {address} {domain} {times}"))


def assert_answered(asked: Any, times: int) -> None:
    """Require that nginx answered every request, with 404, or with 429 if the request came too fast."""
    assert (asked["before"], asked["after"]) == (404, 404)
    assert set(asked["burst"]) <= {"404", "429"}
    assert sum(asked["burst"].values()) == times


@pytest.mark.parametrize("stranger", ["ipv4", "ipv6"])
def test_a_client_that_keeps_asking_for_missing_paths_is_banned(
    droplet: Host, outside: Host, lab: Environment, stranger: str
) -> None:
    """The ban covers every port and even an open connection, and survives a restart of fail2ban."""
    address, own = getattr(machine_of(droplet), stranger), getattr(NEIGHBOUR, stranger)
    asked = ask_often(outside, address, lab)
    assert (asked["before"], asked["after"]) == (404, None)
    assert as_counted(own) in banned_addresses(droplet)
    assert [reaches(outside, address, port) for port in (22, 80, 443)] == [False] * 3

    droplet.check_output("systemctl restart fail2ban.service")
    eventually(lambda: not reaches(outside, address, 443))
    assert as_counted(own) in banned_addresses(droplet)


def as_counted(address: Any) -> object:
    """Return the address as fail2ban counts it.

    nginx logs the first address of an IPv6 client's /64. A ban of that network still spares a trusted address in the
    network.
    """
    return ip_network((address, 64), strict=False).network_address if address.version == 6 else address


def banned_addresses(droplet: Host) -> set[object]:
    return set(map(ip_address, banned(droplet, "nginx-refusals")))


def test_a_ban_survives_a_reboot(droplet: Host, outside: Host, lab: Environment) -> None:
    there = machine_of(droplet)
    ask_often(outside, there.ipv4, lab)
    assert not reaches(outside, there.ipv4, 443)
    machines.reboot(there)
    droplet = lab.reconnect(there.name)
    droplet.check_output("systemctl is-system-running --wait")
    eventually(lambda: STRANGER in banned(droplet, "nginx-refusals"))
    assert not reaches(outside, there.ipv4, 443)


def test_a_trusted_address_that_does_the_same_is_not_banned(droplet: Host, lab: Environment) -> None:
    """Control: the same program gets an answer to every request if it runs at a trusted address."""
    command = [sys.executable, "-c", PROGRAM, str(machine_of(droplet).ipv4), lab.settings.values.domain, str(OFTEN)]
    assert_answered(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout), OFTEN)
    assert banned(droplet, "nginx-refusals") == set()


def test_a_client_below_the_limit_is_not_banned(droplet: Host, outside: Host, lab: Environment) -> None:
    """Control: the same address below the limit is not banned."""
    assert_answered(ask_often(outside, machine_of(droplet).ipv4, lab, A_LITTLE), A_LITTLE)


def test_a_client_that_guesses_at_ssh_is_banned(droplet: Host, outside: Host) -> None:
    """sshd accepts only keys, so a guess fails before it sends a password. fail2ban still counts the guess."""
    address = machine_of(droplet).ipv4
    assert reaches(outside, address, 22)
    for _ in range(12):
        guess_at_ssh(outside, droplet)
        if STRANGER in banned(droplet, "sshd"):
            break
    eventually(lambda: STRANGER in banned(droplet, "sshd"))
    assert [reaches(outside, address, port) for port in (22, 80, 443)] == [False] * 3


@pytest.fixture
def short_bans(droplet: Host) -> Iterator[None]:
    droplet.check_output("fail2ban-client set sshd bantime 3")
    yield
    droplet.check_output("fail2ban-client reload sshd")


def test_each_ban_lasts_longer_than_the_one_before(droplet: Host, short_bans: None) -> None:
    times = []
    for _ in range(2):
        droplet.check_output(f"fail2ban-client set sshd attempt {STRANGER} {'guess ' * 10}")
        eventually(lambda: STRANGER in banned(droplet, "sshd"))
        times.append(ban_time(droplet))
        eventually(lambda: STRANGER not in banned(droplet, "sshd"))
    assert times == [3, 6]
