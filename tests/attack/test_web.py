"""HTTP and logins: clients that are slow, want too much, lie about who they are, or guess."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.attack.conftest import Serving
from tests.lab.layout import NEIGHBOUR, by_name
from tests.places import Place

pytestmark = pytest.mark.group("edge")

Result = Callable[..., None]

SLOW = Path(__file__).with_name("slow.py").read_text()
CONFIGURATION, SAVED = "/etc/nginx/nginx.conf", "/etc/nginx/nginx.conf.attacked"
RELOAD = "nginx -t && systemctl reload nginx.service"
MANY, GUESSES = 150, 14
SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=2"


@pytest.fixture(autouse=True)
def unknown(droplet: Host) -> Iterator[None]:
    """The attacker is known for nothing, before and afterwards."""
    droplet.check_output(f"fail2ban-client unban {NEIGHBOUR.ipv4} {NEIGHBOUR.ipv6}")
    yield
    droplet.check_output(f"fail2ban-client unban {NEIGHBOUR.ipv4} {NEIGHBOUR.ipv6}")


@pytest.fixture
def nginx_alone(droplet: Host) -> Iterator[None]:
    """What nginx does by itself: no ban comes to help."""
    with without_jail(droplet, "nginx-refusals"):
        yield


@contextmanager
def without_jail(droplet: Host, jail: str) -> Iterator[None]:
    droplet.check_output(f"fail2ban-client stop {jail}")
    try:
        yield
    finally:
        droplet.check_output("fail2ban-client reload")


@contextmanager
def changed(droplet: Host, *changes: str) -> Iterator[None]:
    """nginx without a defence: changed by sed's expressions, each of which has to change something."""
    droplet.check_output(f"cp -p {CONFIGURATION} {SAVED}")
    try:
        for change in changes:
            before = droplet.file(CONFIGURATION).sha256sum
            droplet.check_output(f"sed -i -E {shlex.quote(change)} {CONFIGURATION}")
            assert droplet.file(CONFIGURATION).sha256sum != before, change
        droplet.check_output(RELOAD)
        time.sleep(1)
        yield
    finally:
        droplet.check_output(f"mv {SAVED} {CONFIGURATION} && {RELOAD}")
        time.sleep(1)


def address(droplet: Host) -> str:
    return str(by_name(droplet.backend.get_hostname()).ipv4)


def site(lab: Place, path: str = "/nothing") -> str:
    return f"https://{lab.settings.values.domain}{path}"


def statuses(attacker: Host, lab: Place, options: str) -> Counter[str]:
    """How often each status came back; 000 for no answer."""
    said = attacker.run(f"curl -sS -4 -o /dev/null -w '%{{http_code}}\\n' --max-time 10 {lab.trust} {options}").stdout
    return Counter(said.split())


def told(statuses: Counter[str]) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))


@pytest.mark.usefixtures("nginx_alone")
def test_slow_clients(attacker: Host, droplet: Host, serving: Serving, result: Result) -> None:
    """dev-sec nginx-17; they would take all of its connections, given time."""
    attack = shlex.join(["python3", "-c", SLOW, address(droplet), str(MANY), "14"])
    got = int(attacker.check_output(attack))
    assert got == 0
    with serving.defence_out(), changed(droplet, "s/client_header_timeout .*/client_header_timeout 60s;/"):
        control = int(attacker.check_output(attack))
    assert control == MANY
    result("slow clients", got=f"{got} of {MANY} held", control=f"{control} of {MANY} held")


TOO_MUCH = {
    "a large body": (
        "413",
        "-X POST --data-binary @-",
        "head -c 5000000 /dev/zero",
        "s/client_max_body_size .*/client_max_body_size 0;/",
    ),
    "a flood of headers": (
        "431",
        "--http1.1 -H @-",
        "for n in $(seq 40); do printf 'X-%s: %0900d\\n' $n 1; done",
        "s/large_client_header_buffers .*/large_client_header_buffers 16 64k;/",
    ),
}


@pytest.mark.usefixtures("nginx_alone")
def test_too_much(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    """dev-sec nginx-06: what is sent is bounded."""
    for attack, (refused, options, program, change) in TOO_MUCH.items():
        send = f"curl -sS -o /dev/null -w '%{{http_code}}' --max-time 10 {lab.trust} {options} {site(lab)}"
        got = attacker.run(f"({program}) | {send}").stdout
        assert got == refused
        with serving.defence_out(), changed(droplet, change):
            control = attacker.run(f"({program}) | {send}").stdout
        assert control == "404"
        result(attack, got=got, control=f"{control}: taken whole")


@pytest.mark.usefixtures("nginx_alone")
def test_a_flood_of_requests(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    flood = f"'{site(lab, f'/nothing/[1-{MANY}]')}'"
    got = statuses(attacker, lab, flood)
    assert got["429"] > MANY / 2
    with serving.defence_out(), changed(droplet, "s/^( *)limit_req zone=requests .*/\\1#/"):
        control = statuses(attacker, lab, flood)
    assert control == {"404": MANY}
    result("a flood of requests", got=told(got), control=told(control))


def test_another_name(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    """One that somebody has pointed at the droplet, or none."""
    ask = f"-H 'Host: another.test' http://{lab.settings.values.domain}/"
    got = statuses(attacker, lab, ask)
    assert got == {"000": 1}
    with serving.defence_out(), changed(droplet, 's/return 444;/return 200 "served";/'):
        control = statuses(attacker, lab, ask)
    assert control == {"200": 1}
    result("another name", got="a reset", control=told(control))


def test_forged_addresses(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    forged = (
        f"-H 'X-Forwarded-For: 10.77.0.2' -H 'X-Real-IP: 10.77.0.2' -X POST -d {{}} {site(lab, '/webhook/telegram')}"
    )
    got = statuses(attacker, lab, forged)
    assert got == {"403": 1}
    believing = "s/^( *)server_tokens off;/\\1set_real_ip_from 10.77.0.0\\/24; real_ip_header X-Forwarded-For;/"
    with serving.defence_out(), changed(droplet, believing):
        control = statuses(attacker, lab, forged)
    assert control == {"401": 1}, "the app is reached"
    result("a forged X-Forwarded-For", got=told(got), control="the app, which wants its secret")


def test_a_wrong_secret(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    """Not one guess gets to the app; those that would are the second layer's to refuse."""
    guess = f"-H 'X-Telegram-Bot-Api-Secret-Token: guess' -X POST -d {{}} {site(lab, '/webhook/telegram')}"
    got = statuses(attacker, lab, guess)
    assert got == {"403": 1}
    with serving.defence_out(), changed(droplet, "s/^( *)deny all;/\\1#/"):
        control = statuses(attacker, lab, guess)
    assert control == {"401": 1}
    result("a wrong webhook secret", got=told(got), control=f"{told(control)} by the app")


def test_looking_for_what_is_there(attacker: Host, droplet: Host, lab: Place, serving: Serving, result: Result) -> None:
    """Slowly enough for the limits: port 80, which has none. fail2ban sees it all the same."""
    look = f"--max-time 2 'http://{lab.settings.values.domain}/.well-known/acme-challenge/[1-{MANY}]'"
    first = statuses(attacker, lab, look)
    time.sleep(4)
    got = statuses(attacker, lab, look.replace(f"[1-{MANY}]", "1"))
    assert got == {"000": 1}
    with serving.defence_out(), without_jail(droplet, "nginx-refusals"):
        droplet.check_output(f"fail2ban-client unban {NEIGHBOUR.ipv4}")
        statuses(attacker, lab, look)
        time.sleep(4)
        control = statuses(attacker, lab, look)
    assert control == {"404": MANY}
    result("looking for what is there", got=f"{told(first)}, then silence", control=told(control))


def test_brute_force_on_ssh(attacker: Host, droplet: Host, serving: Serving, result: Result) -> None:
    got = guesses(attacker, droplet)
    assert 0 < got < GUESSES
    with serving.defence_out(), without_jail(droplet, "sshd"):
        droplet.check_output(f"fail2ban-client unban {NEIGHBOUR.ipv4}")
        control = guesses(attacker, droplet)
    assert control == GUESSES
    result("brute force on SSH", got=f"{got} guesses, then silence", control=f"{control} guesses of {GUESSES}")


def guesses(attacker: Host, droplet: Host) -> int:
    """How many of them sshd answered."""
    answers = [attacker.run(f"{SSH} root@{address(droplet)} || true").stderr for _ in range(GUESSES)]
    return sum("Permission denied" in answer for answer in answers)
