"""A release loses no request, and a bad release is undone.

`make load` and `make faults` test releases more thoroughly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from tests.lab.demo import deliver_an_update
from tests.support.environment import Environment, status
from tests.support.load import lab_target, load
from tests.support.under_way import UnderWay

pytestmark = pytest.mark.group("app")

CLIENTS, RATE = 20, 60.0
REFUSED, KILLED = 2, 4


@pytest.fixture
def live(droplet: Host) -> str:
    return tag(droplet)


@pytest.fixture
def other(live: str) -> str:
    """Return whichever of the tags 1.0.0 and 1.1.0 is not live. The images 1.0.0 and 1.1.0 have the same content."""
    return "1.1.0" if live == "1.0.0" else "1.0.0"


def remains(droplet: Host) -> dict[str, Any]:
    """Return the parts of `stackctl status` that must be unchanged after a release is undone."""
    report = status(droplet)
    return {key: report[key] for key in ("release", "active", "worker", "kept", "webhook", "problems")}


def tag(droplet: Host) -> str:
    return str(status(droplet)["release"]["tag"])


def test_a_release_and_a_rollback_lose_no_request(lab: Environment, droplet: Host, live: str, other: str) -> None:
    with load(lab_target(lab), clients=CLIENTS, rate=RATE) as running:
        droplet.check_output(f"stackctl release {other}")
        assert tag(droplet) == other
        droplet.check_output("stackctl rollback")
    assert tag(droplet) == live
    assert len(running.tally.requests) > 300
    assert not running.tally.lost, running.tally.table()


def test_a_bad_release_undoes_itself_and_says_why(droplet: Host) -> None:
    before = remains(droplet)
    code, output = UnderWay(("release", "broken-crash")).end()
    assert code == 1
    assert "web ended by itself" in output.splitlines()[-1]
    assert "| broken-crash: web exits at its start" in output
    assert remains(droplet) == before
    newest = json.loads(droplet.check_output("stackctl history --json"))[-1]
    assert (newest["tag"], newest["by"], newest["state"]) == ("broken-crash", "deploy", "failed")
    assert "web ended by itself" in newest["message"]


def test_a_release_of_a_tag_that_is_not_there_changes_nothing(droplet: Host) -> None:
    before = remains(droplet)
    refused = droplet.run("stackctl release 9.9.9")
    assert refused.rc == REFUSED
    assert ":9.9.9" in refused.stdout + refused.stderr
    assert remains(droplet) == before


def test_a_release_killed_after_its_flip_can_be_finished(lab: Environment, droplet: Host, other: str) -> None:
    with load(lab_target(lab), clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", other))
        asked.reach("watch")
        asked.kill()
        assert asked.end()[0] == KILLED
        assert "a release was interrupted" in droplet.run("stackctl status").stdout
        droplet.check_output(f"stackctl release {other}")
    assert not running.tally.lost, running.tally.table()
    assert droplet.run("stackctl status").rc == 0


def test_a_dropped_connection_ends_nothing(droplet: Host, other: str) -> None:
    asked = UnderWay(("release", other))
    asked.reach("image")
    asked.hang_up()
    code, output = UnderWay(("release", "--follow")).end()
    assert (code, f"{other} by deploy" in output.splitlines()[0]) == (0, True)
    assert tag(droplet) == other


@pytest.fixture
def maintenance(droplet: Host) -> Iterator[None]:
    droplet.check_output("stackctl maintenance on")
    try:
        yield
    finally:
        droplet.check_output("stackctl maintenance off")


def test_maintenance_asks_everybody_to_come_again(lab: Environment, outside: Host, maintenance: None) -> None:
    ask = f"curl -sS --include --max-time 5 {lab.trust} https://{lab.settings.values.domain}/webhook/telegram"
    answer = outside.check_output(f"{ask} -d x").lower()
    assert answer.startswith("http/2 503")
    assert "retry-after: 30" in answer
    assert "down for maintenance" in answer


def test_after_maintenance_telegram_gets_through(lab: Environment) -> None:
    deliver_an_update()
