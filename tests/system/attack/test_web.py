"""Hostile HTTP clients are slow, send too much, forge their identity, or guess secrets and logins."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.support.probes import addresses_of_one_network, guess_at_ssh, machine_of, pardon
from tests.support.web import TOO_MUCH, send_too_much
from tests.system.attack.conftest import Serving

pytestmark = pytest.mark.group("edge")

Result = Callable[..., None]

SLOW, UNTAKEN, ONE_BY_ONE = (
    Path(__file__).with_name(name).read_text() for name in ("slow.py", "untaken.py", "many.py")
)
CONFIGURATION, SAVED = "/etc/nginx/nginx.conf", "/etc/nginx/nginx.conf.attacked"
RELOAD = "nginx -t && systemctl reload nginx.service"
MANY, UNTAKEN_AT_ONCE, CONNECTIONS, GUESSES, ADDRESSES = 150, 100, 30, 14, 100
UNTIL_S = "14"
"""The seconds that slow clients hold their connections, a few more than nginx's timeout of ten seconds."""


@pytest.fixture(autouse=True)
def unknown(droplet: Host) -> Iterator[None]:
    """Lift the attacker's ban before and after each test."""
    pardon(droplet)
    yield
    pardon(droplet)


@pytest.fixture(scope="module", autouse=True)
def unknown_in_the_end(droplet: Host) -> Iterator[None]:
    """Lift the ban once more after the last test.

    A jail that restarts reads the last minutes of its log again, and may ban the attacker again. The attacker must not
    be banned when the next suite starts.
    """
    yield
    time.sleep(5)
    pardon(droplet)


@pytest.fixture
def nginx_alone(droplet: Host) -> Iterator[None]:
    """Stop fail2ban's jails, so that nginx is the only defence."""
    with without_jail(droplet, "nginx-refusals", "nginx-floods"):
        yield


@contextmanager
def without_jail(droplet: Host, *jails: str) -> Iterator[None]:
    for jail in jails:
        droplet.check_output(f"fail2ban-client stop {jail}")
    try:
        yield
    finally:
        droplet.check_output("fail2ban-client reload")


@contextmanager
def changed(droplet: Host, *changes: str) -> Iterator[None]:
    """Run nginx with a configuration that sed expressions change, for example without a defence.

    Each expression must change something.
    """
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


def site(lab: Environment, path: str = "/nothing") -> str:
    return f"https://{lab.settings.values.domain}{path}"


def statuses(attacker: Host, lab: Environment, options: str) -> Counter[str]:
    """Return the number of answers with each status. The status 000 means no answer."""
    said = attacker.run(f"curl -sS -4 -o /dev/null -w '%{{http_code}}\\n' --max-time 10 {lab.trust} {options}").stdout
    return Counter(said.split())


def told(statuses: Counter[str]) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))


@pytest.mark.usefixtures("nginx_alone")
@pytest.mark.parametrize(("endless", "defence"), [("headers", "client_header_timeout"), ("body", "lingering_time")])
def test_slow_senders(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result, *, endless: str, defence: str
) -> None:
    """Slow senders would use up nginx's connections (dev-sec nginx-17).

    nginx even waits for the body of a request that nginx refuses.
    """
    arguments = (endless, str(machine_of(droplet).ipv4), lab.settings.values.domain, str(MANY), UNTIL_S)
    attack = shlex.join(["python3", "-c", SLOW, *arguments])
    for _ in serving.attacks():
        got = int(attacker.check_output(attack))
        assert got == 0
    with serving.defence_out(), changed(droplet, f"s/ {defence} .*/ {defence} 60s;/"):
        control = int(attacker.check_output(attack))
    assert control == MANY
    result(f"endless {endless}", got=f"{got} of {MANY} held", control=f"{control} of {MANY} held")


@pytest.mark.usefixtures("nginx_alone")
def test_answers_that_the_client_does_not_read(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result
) -> None:
    """An HTTP/2 client decides how much it accepts, and nginx holds the remaining answers."""
    arguments = (str(machine_of(droplet).ipv4), lab.settings.values.domain, str(UNTAKEN_AT_ONCE), UNTIL_S)
    attack = shlex.join(["python3", "-c", UNTAKEN, *arguments])
    for _ in serving.attacks():
        got = int(attacker.check_output(attack))
        assert got == 0
    with serving.defence_out(), changed(droplet, "s/ send_timeout .*/ send_timeout 60s;/"):
        control = int(attacker.check_output(attack))
    assert control == UNTAKEN_AT_ONCE
    result("answers that nobody takes", got=f"{got} in hand", control=f"{control} in hand")


HEADERS_LARGER = "s/large_client_header_buffers .*/large_client_header_buffers 16 64k;/"
UNBOUNDED = {"a body": "s/client_max_body_size .*/client_max_body_size 0;/"}


@pytest.mark.usefixtures("nginx_alone")
@pytest.mark.parametrize("what", TOO_MUCH)
def test_too_much(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result, *, what: str
) -> None:
    """nginx limits the size of a client's body and headers (dev-sec nginx-06)."""
    refused = TOO_MUCH[what][0]
    for _ in serving.attacks():
        got = send_too_much(attacker, lab, what)
        assert got.split()[1] == str(refused)
    with serving.defence_out(), changed(droplet, UNBOUNDED.get(what, HEADERS_LARGER)):
        control = send_too_much(attacker, lab, what)
    assert control.split()[1] == "404"
    result(f"too much: {what}", got=str(refused), control="404: taken whole")


@pytest.mark.usefixtures("nginx_alone")
@pytest.mark.parametrize(("scheme", "answer"), [("https", "404"), ("http", "301")])
def test_a_flood_of_requests(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result, *, scheme: str, answer: str
) -> None:
    flood = f"'{scheme}://{lab.settings.values.domain}/nothing/[1-{MANY}]'"
    for _ in serving.attacks():
        got = statuses(attacker, lab, flood)
        assert got["429"] > MANY / 2
    with serving.defence_out(), changed(droplet, "s/^( *)limit_req zone=request_rate .*/\\1#/"):
        control = statuses(attacker, lab, flood)
    assert control == {answer: MANY}
    result(f"a flood of requests, {scheme}", got=told(got), control=told(control))


@pytest.mark.usefixtures("nginx_alone")
def test_a_flood_from_many_addresses_of_one_network(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result
) -> None:
    """Each request comes from a different address of the network, and one curl sends all, faster than a shell could."""
    plain = f"http://{lab.settings.values.domain}/nothing"
    with addresses_of_one_network(attacker, droplet, ADDRESSES) as many:
        asked = (f"-6 -o /dev/null -w '%{{http_code}}\\n' --max-time 10 --interface {one} {plain}" for one in many)
        each = f"curl -sS {' --next '.join(asked)}"
        for _ in serving.attacks():
            got = Counter(attacker.check_output(each).split())
            assert got["429"] > ADDRESSES / 10
        with serving.defence_out(), changed(droplet, r's/^( *)"~\(\?s\).* \$network;/\1#/'):
            control = Counter(attacker.check_output(each).split())
    assert control == {"301": ADDRESSES}
    result("a flood from one /64", got=told(got), control=told(control))


@pytest.mark.usefixtures("nginx_alone")
def test_many_connections(attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result) -> None:
    """The client opens few connections per second, but holds too many at the same time (dev-sec nginx-07)."""
    arguments = (str(machine_of(droplet).ipv4), lab.settings.values.domain, str(CONNECTIONS))
    attack = shlex.join(["python3", "-c", ONE_BY_ONE, *arguments])
    for _ in serving.attacks():
        got = Counter(attacker.check_output(attack).split())
        assert got == {"301": 20, "429": CONNECTIONS - 20}
    with serving.defence_out(), changed(droplet, "s/^( *)limit_conn under_way 20;/\\1#/"):
        control = Counter(attacker.check_output(attack).split())
    assert control == {"301": CONNECTIONS}
    result("many connections", got=told(got), control=told(control))


ANOTHER_NAME = {
    "http": ('s/return 444;/return 200 "served";/',),
    "https": (
        r"s/ssl_reject_handshake on;/ssl_certificate $tls\/fullchain.pem; ssl_certificate_key $tls\/privkey.pem;/",
        's/return 444;/return 200 "served";/',
    ),
}


@pytest.mark.usefixtures("nginx_alone")
@pytest.mark.parametrize("scheme", ANOTHER_NAME)
def test_another_name(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result, *, scheme: str
) -> None:
    """A stranger has pointed another DNS name at the droplet. The client accepts any certificate."""
    address = machine_of(droplet).ipv4
    ask = f"--insecure --resolve another.test:80:{address} --resolve another.test:443:{address} {scheme}://another.test"
    for _ in serving.attacks():
        got = statuses(attacker, lab, ask)
        assert got == {"000": 1}
    with serving.defence_out(), changed(droplet, *ANOTHER_NAME[scheme]):
        control = statuses(attacker, lab, ask)
    assert control == {"200": 1}
    result(f"another name, {scheme}", got="a reset", control=told(control))


@pytest.mark.usefixtures("nginx_alone")
def test_forged_addresses(attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result) -> None:
    forged = (
        f"-H 'X-Forwarded-For: 10.77.0.2' -H 'X-Real-IP: 10.77.0.2' -X POST -d {{}} {site(lab, '/webhook/telegram')}"
    )
    for _ in serving.attacks():
        got = statuses(attacker, lab, forged)
        assert got == {"403": 1}
    believing = "s/^( *)server_tokens off;/\\1set_real_ip_from 10.77.0.0\\/24; real_ip_header X-Forwarded-For;/"
    with serving.defence_out(), changed(droplet, believing):
        control = statuses(attacker, lab, forged)
    assert control == {"401": 1}, "without the defence, the request must reach the app"
    result("a forged X-Forwarded-For", got=told(got), control="the app, which wants its secret")


@contextmanager
def released(droplet: Host, tag: str) -> Iterator[None]:
    """Make a version live during the test."""
    droplet.check_output(f"stackctl release {tag}")
    try:
        yield
    finally:
        droplet.check_output("stackctl rollback")


def test_a_wrong_secret(droplet: Host, lab: Environment, serving: Serving, result: Result) -> None:
    """The app refuses a wrong secret even from Telegram's own address, which nginx admits."""
    guess = "-H 'X-Telegram-Bot-Api-Secret-Token: guess' -X POST -d '{\"update_id\": 0}'"
    for _ in serving.attacks():
        got = lab.ask_as_telegram(site(lab, "/webhook/telegram"), guess).split()[1]
        assert got == "401"
    with serving.defence_out(), released(droplet, "broken-trust"):
        control = lab.ask_as_telegram(site(lab, "/webhook/telegram"), guess).split()[1]
    assert control == "200"
    result("a wrong webhook secret", got=f"{got} by the app", control=f"{control} by one that trusts anybody")


def test_looking_for_what_is_there(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Result
) -> None:
    """fail2ban bans a client that stays below nginx's limits but requests about a hundred missing paths in a minute."""
    look = f"--rate 8/s --max-time 2 'https://{lab.settings.values.domain}/nothing/[1-110]'"
    for _ in serving.attacks():
        first = statuses(attacker, lab, look)
        assert set(first) <= {"404", "000"}
    time.sleep(4)
    got = statuses(attacker, lab, f"--max-time 2 {site(lab)}")
    assert got == {"000": 1}
    with serving.defence_out(), without_jail(droplet, "nginx-refusals"):
        pardon(droplet)
        control = statuses(attacker, lab, look)
        time.sleep(4)
        control += statuses(attacker, lab, f"--max-time 2 {site(lab)}")
    assert control == {"404": 111}
    result("looking for what is there", got=f"{told(first)}, then silence", control=told(control))


def test_brute_force_on_ssh(attacker: Host, droplet: Host, serving: Serving, result: Result) -> None:
    for _ in serving.attacks():
        got = guesses(attacker, droplet)
        assert 0 < got < GUESSES
    with serving.defence_out(), without_jail(droplet, "sshd"):
        pardon(droplet)
        control = guesses(attacker, droplet)
    assert control == GUESSES
    result("brute force on SSH", got=f"{got} guesses, then silence", control=f"{control} guesses of {GUESSES}")


def guesses(attacker: Host, droplet: Host) -> int:
    """Guess every half second, and return how many guesses sshd answered. fail2ban reads the journal every 2 s."""
    answered = 0
    for _ in range(GUESSES):
        answered += guess_at_ssh(attacker, droplet)
        time.sleep(0.5)
    return answered
