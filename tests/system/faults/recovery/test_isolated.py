"""An isolated droplet connects to no other host, so Telegram gets no request until the droplet is promoted."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.lab.demo import calls, delivery, post
from tests.lab.drill import JOB
from tests.lab.layout import WORLD
from tests.support import converge
from tests.support.data import Database
from tests.support.environment import Environment, lasting_problems, status

pytestmark = pytest.mark.group("app")

SOON_S = 30


def reaches_telegram(droplet: Host) -> bool:
    """Return whether the bot's container can connect to Telegram's address. The connection needs no name server."""
    web = f"toogoodtogo-{status(droplet)['active']}-web-1"
    python = json.loads(droplet.check_output(f"docker inspect -f '{{{{json .Config.Entrypoint}}}}' {web}"))[0]
    connect = f"import socket; socket.create_connection(('{WORLD.ipv4}', 8081), timeout=3)"
    return bool(droplet.run(f"docker exec {web} {python} -c {shlex.quote(connect)}").rc == 0)


@pytest.fixture(scope="module")
def copy(lab: Environment) -> Iterator[Host]:
    """Isolate a droplet on which the bot runs, and promote it at the end."""
    droplet = lab.connect(lab.hosts("app")[0])
    if droplet.run("stackctl status").rc:
        droplet.check_output("stackctl release 1.0.0")
    converge.site("--data", "isolated=true")
    post("/lab/forget", {})
    try:
        yield droplet
    finally:
        converge.site("--data", "isolated=false")


def test_no_one_outside_hears_of_an_isolated_droplet(copy: Host, lab: Environment, database: Database) -> None:
    database.ask(JOB)
    (update,) = post("/lab/updates", {"count": 1, "text": "/offers"})["update_ids"]
    copy.check_output("stackctl release 1.1.0")
    time.sleep(5)  # a worker would do the job within these seconds
    assert calls(copy.backend.get_hostname()) == []
    assert not reaches_telegram(copy)
    assert (delivery(update)["deliveries"], delivery(update)["last_status"]) == (0, 503)
    assert database.ask("SELECT count(*) FROM jobs WHERE kind = 'notify' AND finished_at IS NULL") != "0"
    timers = copy.check_output("systemctl list-timers --all --no-legend")
    assert lab.settings.paths.units.backup_timer not in timers
    assert lab.settings.paths.units.certificate_timer in timers, "the host's own timers must keep running"


def test_a_droplet_stays_isolated_after_an_ordinary_converge_and_a_reboot(copy: Host, lab: Environment) -> None:
    assert "ISOLATED" in copy.check_output("stackctl status")
    changed = converge.changed(converge.site())
    assert not changed, "a converge without `isolated` must not change the isolation"
    assert (status(copy)["isolated"], status(copy)["worker"], status(copy)["problems"]) == (True, None, [])


def test_an_isolated_droplet_reads_the_off_site_backups_and_adds_none(copy: Host) -> None:
    before = json.loads(copy.check_output("stackctl check-offsite --json"))
    said = copy.check_output("stackctl backup")
    assert "this droplet is isolated" in said
    assert json.loads(copy.check_output("stackctl check-offsite --json")) == before


def test_once_live_it_does_what_was_left_to_do(copy: Host, database: Database) -> None:
    converge.site("--data", "isolated=false")
    assert (status(copy)["isolated"], lasting_problems(copy)) == (False, [])
    (update,) = post("/lab/updates", {"count": 1, "text": "/offers"})["update_ids"]
    deadline = time.monotonic() + SOON_S
    left = "SELECT count(*) FROM jobs WHERE kind = 'notify' AND finished_at IS NULL"
    while database.ask(left) != "0" or not delivery(update)["deliveries"]:
        assert time.monotonic() < deadline, "the job is still pending, or the update was not delivered"
        time.sleep(0.5)
    assert reaches_telegram(copy), "control: a promoted droplet must reach Telegram"
    heard = set(calls(copy.backend.get_hostname()))
    assert "sendMessage" in heard, "the bot's containers did not call Telegram"
    assert heard & {"setWebhook", "getWebhookInfo"}, "the droplet itself did not call Telegram"
    assert not converge.changed(converge.site()), "a second converge after the promotion must change nothing"
