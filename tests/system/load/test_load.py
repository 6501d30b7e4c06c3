"""Ten releases and two rollbacks lose no request of forty keep-alive clients.

Controls show that the usual alternatives lose requests.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.support.environment import Environment, status
from tests.support.load import Tally, Target, load

pytestmark = pytest.mark.group("app")

REQUESTS = 10_000
QUIET_S = 10.0
"""The seconds of load without a release, before and after the releases."""
FIVE_RELEASES = ("1.1.0", "1.0.0", "1.1.0", "1.0.0", "1.1.0")
MOST_MS = 10_000
RELOADS = 20
RENEWALS = 3
FRESH = 4
"""The number of clients that open a connection per request, so that handshakes happen throughout a renewal."""

PLAIN = Path(__file__).with_name("plain.py")

Show = Callable[[str], None]


@dataclass(frozen=True)
class Switch:
    """The time and duration of a flip, from history.jsonl."""

    op: str
    at: float
    ms: int


def switches(droplet: Host, env: Environment, since: float) -> list[Switch]:
    events = map(json.loads, droplet.check_output(f"tail -n 2000 {env.settings.paths.history}").splitlines())
    flips = [event for event in events if (event["step"], event["state"]) == ("flip", "done")]
    all_of_them = [Switch(flip["op"], datetime.fromisoformat(flip["ts"]).timestamp(), flip["ms"]) for flip in flips]
    return [switch for switch in all_of_them if switch.at >= since]


def switch_table(tally: Tally, made: list[Switch]) -> str:
    gaps = [tally.gap_around(switch.at) for switch in made]
    quiet = tally.of("before").requests
    otherwise = max(tally.gaps(quiet[0].ended, quiet[-1].ended))
    return (
        f"  {len(made)} switches. The flip itself: median {statistics.median(s.ms for s in made):.0f} ms, "
        f"most {max(s.ms for s in made)} ms\n"
        f"  Longest time without an answer around one: median {statistics.median(gaps):.0f} ms, "
        f"most {max(gaps):.0f} ms ({otherwise:.0f} ms before the first release)"
    )


@pytest.fixture
def live_1_0_0(droplet: Host) -> None:
    if status(droplet)["release"]["tag"] != "1.0.0":
        droplet.check_output("stackctl release 1.0.0")


def test_ten_releases_and_two_rollbacks_lose_nothing(
    lab: Environment, droplet: Host, target: Target, live_1_0_0: None, show: Show
) -> None:
    began = time.time()
    with load(target) as running:
        time.sleep(2)
        running.phase("before")
        time.sleep(QUIET_S)
        running.phase("during")
        for _ in range(2):
            for tag in FIVE_RELEASES:
                droplet.check_output(f"stackctl release {tag}")
            droplet.check_output("stackctl rollback")
        running.phase("after")
        time.sleep(QUIET_S)
        running.until(REQUESTS)
    made = switches(droplet, lab, began)
    show(running.tally.table() + "\n" + switch_table(running.tally, made))
    assert not running.tally.lost
    assert len(running.tally.requests) >= REQUESTS
    assert [switch.op for switch in made] == [*["release"] * 5, "rollback"] * 2


def test_a_release_without_migrations_takes_ten_seconds_besides_dump_and_watch(
    droplet: Host, live_1_0_0: None, show: Show
) -> None:
    """Take the median of three releases, because this machine is sometimes busy."""
    besides = []
    for tag in ("1.1.0", "1.0.0", "1.1.0"):
        events = map(json.loads, droplet.check_output(f"stackctl release {tag} --json").splitlines())
        took = {event["step"]: event["ms"] for event in events if event["state"] == "done"}
        besides.append(took["release"] - took["backup"] - took["watch"])
        show(f"  {besides[-1] / 1000:.1f} s besides dump ({took['backup']} ms) and watch ({took['watch']} ms): {took}")
    assert statistics.median(besides) <= MOST_MS


def test_renewal_loses_nothing(lab: Environment, droplet: Host, target: Target, show: Show) -> None:
    handshake = f"openssl s_client -connect localhost:443 -servername {target.host} </dev/null 2>&1"
    serial = f"{handshake} | openssl x509 -noout -serial"
    seen = {droplet.check_output(serial)}
    with load(target, fresh=FRESH) as running:
        time.sleep(2)
        running.phase("before")
        time.sleep(QUIET_S)
        running.phase("during")
        for _ in range(RENEWALS):
            droplet.check_output("certbot renew --quiet --no-random-sleep-on-renew --force-renewal")
            seen.add(droplet.check_output(serial))
        running.phase("after")
        time.sleep(QUIET_S)
    show(running.tally.table())
    assert len(seen) == 1 + RENEWALS
    assert not running.tally.lost


def test_reloads_of_nginx_lose_requests(droplet: Host, target: Target, show: Show) -> None:
    """Control: reloads of nginx lose requests, so no release reloads nginx."""
    with load(target) as running:
        time.sleep(2)
        running.phase("before")
        time.sleep(QUIET_S)
        running.phase(f"{RELOADS} reloads")
        for _ in range(RELOADS):
            droplet.check_output("systemctl reload nginx")
            time.sleep(0.5)
        running.phase("after")
        time.sleep(QUIET_S)
    show(running.tally.table())
    assert running.tally.of(f"{RELOADS} reloads").lost
    assert not running.tally.of("before").lost


@pytest.fixture
def plain(lab: Environment, droplet: Host) -> Iterator[Callable[..., None]]:
    """Run the Compose project of plain.py on the droplet, and make nginx pass requests to the project.

    Remove the project at the end.
    """

    def run(*arguments: str) -> None:
        ran = lab.run_python(droplet, PLAIN, *arguments, stdin=b"")
        assert ran.returncode == 0, ran.stderr.decode()

    try:
        run("up", "1.0.0")
        run("serve")
        yield run
    finally:
        run("down")


def test_compose_up_loses_requests(plain: Callable[..., None], target: Target, show: Show) -> None:
    """Control: two releases by `docker compose up -d` behind nginx, as a small team makes them, lose requests."""
    with load(target) as running:
        time.sleep(2)
        running.phase("before")
        time.sleep(QUIET_S)
        running.phase("compose up -d, twice")
        plain("up", "1.1.0")
        plain("up", "1.0.0")
        running.phase("after")
        time.sleep(QUIET_S)
    show(running.tally.table())
    assert running.tally.of("compose up -d, twice").lost
    assert not running.tally.of("before").lost
