"""fail2ban at work: who guesses or probes is shut out, wholly and for longer each time; who is to be spared, is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.lab.layout import NEIGHBOUR, by_name
from tests.places import Place

pytestmark = pytest.mark.group("edge")

PROGRAM = (Path(__file__).parent / "ask_often.py").read_text()
STRANGER = str(NEIGHBOUR.ipv4)
OFTEN = "110"
SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3"


def address(droplet: Host) -> str:
    return str(by_name(droplet.backend.get_hostname()).ipv4)


def banned(droplet: Host, jail: str) -> set[str]:
    return set(droplet.check_output(f"fail2ban-client get {jail} banip").split())


def ban_time(droplet: Host) -> int | None:
    """How long the stranger's ban is to last, in seconds."""
    shown = droplet.check_output("fail2ban-client get sshd banip --with-time")
    found = re.search(rf"^{re.escape(STRANGER)}\s.*\+ (\d+) =", shown, re.MULTILINE)
    return int(found[1]) if found else None


def reaches(outside: Host, droplet: Host, port: int) -> bool:
    return bool(outside.run(f"nc -z -w 2 {address(droplet)} {port}").rc == 0)


@pytest.fixture(autouse=True)
def stranger(droplet: Host, outside: Host) -> Iterator[None]:
    """Known for nothing before, and forgotten afterwards."""
    droplet.check_output(f"fail2ban-client unban {STRANGER}")
    yield
    droplet.check_output(f"fail2ban-client unban {STRANGER}")
    assert reaches(outside, droplet, 443)


def eventually(holds: Callable[[], bool]) -> None:
    """Within ten seconds: fail2ban looks and bans each second or so."""
    for _ in range(20):
        if holds():
            return
        time.sleep(0.5)
    assert holds()


def ask_often(outside: Host, droplet: Host, place: Place) -> Any:
    domain = place.settings.values.domain
    return json.loads(outside.check_output(f"python3 -c {shlex.quote(PROGRAM)} {address(droplet)} {domain} {OFTEN}"))


def test_who_asks_for_nothing_again_and_again_is_shut_out(droplet: Host, outside: Host, lab: Place) -> None:
    """From every port, and on the connection that was open, too. A restart of fail2ban forgets nobody."""
    asked = ask_often(outside, droplet, lab)
    assert (asked["before"], asked["after"]) == (404, None)
    assert STRANGER in banned(droplet, "nginx-refusals")
    assert [reaches(outside, droplet, port) for port in (22, 80, 443)] == [False] * 3

    droplet.check_output("systemctl restart fail2ban.service")
    eventually(lambda: not reaches(outside, droplet, 443))
    assert STRANGER in banned(droplet, "nginx-refusals")


def test_the_operator_who_does_the_same_is_not(droplet: Host, lab: Place) -> None:
    """The control: the same program from an address in never_banned, where all of the requests come through."""
    command = [sys.executable, "-c", PROGRAM, address(droplet), lab.settings.values.domain, OFTEN]
    asked = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert asked == {"before": 404, "burst": {"404": int(OFTEN)}, "after": 404}
    assert banned(droplet, "nginx-refusals") == set()


def test_who_asks_a_little_is_not(droplet: Host, outside: Host, lab: Place) -> None:
    """The other control: the same address, below the limit."""
    domain = lab.settings.values.domain
    few = f"python3 -c {shlex.quote(PROGRAM)} {address(droplet)} {domain} 30"
    assert json.loads(outside.check_output(few)) == {"before": 404, "burst": {"404": 30}, "after": 404}


def test_who_guesses_at_ssh_is_shut_out(droplet: Host, outside: Host) -> None:
    """root, whose login is off, is guessed at most; each guess ends before it is one, and counts all the same."""
    assert reaches(outside, droplet, 22)
    for _ in range(12):
        outside.run(f"{SSH} root@{address(droplet)} || true")  # 255 would be our own SSH's
        if STRANGER in banned(droplet, "sshd"):
            break
    eventually(lambda: STRANGER in banned(droplet, "sshd"))
    assert [reaches(outside, droplet, port) for port in (22, 80, 443)] == [False] * 3


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
