"""A release fails under load, in every possible way. The tests check the answers, the remains and the messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from deploys.secrets.env_file import read_env_file
from stackctl.release.release import STEPS
from stackctl.release.rollback import ROLLBACK
from tests.lab import lab as machines
from tests.lab import machine
from tests.lab.demo import deliver_an_update, post, webhook_is_set
from tests.lab.layout import ENV_FILE, by_name
from tests.support import converge
from tests.support.environment import Environment, lasting_problems, status
from tests.support.load import Target, load
from tests.support.small_disk import fill, small_disk
from tests.support.under_way import DROPLET, UnderWay

pytestmark = pytest.mark.group("app")

CLIENTS, RATE = 8, 24.0
KILLED, FAILED, REFUSED, PERSON = 4, 1, 2, 4

Show = Callable[[str], None]


def live(droplet: Host) -> str:
    return str(status(droplet)["release"]["tag"])


def another(droplet: Host) -> str:
    return "1.1.0" if live(droplet) == "1.0.0" else "1.0.0"


def containers(droplet: Host) -> dict[str, str]:
    """Return the app's running containers, including one-shot containers, each with its image."""
    lines = droplet.check_output("docker ps --no-trunc --format '{{.Names}} {{.Image}}'").splitlines()
    return dict(line.split() for line in lines if "-data-" not in line)


def assert_all_is_well(droplet: Host, tag: str) -> None:
    """Require one colour and one worker, both with this tag, and no remains of the failure."""
    seen = droplet.run("stackctl status --json")
    report = json.loads(seen.stdout)
    assert (seen.rc, report["problems"]) == (0, [])
    assert (report["release"]["tag"], report["worker"]["tag"]) == (tag, tag)
    image = report["release"]["image"]
    colour = f"toogoodtogo-{report['active']}-web-1"
    assert containers(droplet) == {colour: image, "toogoodtogo-worker-worker-1": image}
    assert not droplet.check_output("ls /opt/backups | grep partial || true")


@pytest.fixture(autouse=True)
def _well_before(droplet: Host) -> None:
    """Make a good release live before each test, after any state that the previous test left."""
    if droplet.run("stackctl status").rc != 0 or live(droplet) not in {"1.0.0", "1.1.0"}:
        droplet.check_output("stackctl release 1.0.0")


# bad releases


BROKEN = {
    "9.9.9": (REFUSED, "image", "cannot pull"),
    "broken-label": (REFUSED, "image", "has version '0.0.0'"),
    "broken-migration": (FAILED, "migrate", "migrations failed"),
    "broken-hang": (FAILED, "migrate", "migrations took longer than"),
    "broken-crash": (FAILED, "health", "web ended by itself"),
    "broken-unready": (FAILED, "health", "web is running, starting (stackctl waited"),
    "broken-version": (FAILED, "probe", "/health reports version '0.0.0'"),
    "broken-probe": (FAILED, "probe", "answers 500 to an empty update"),
    "broken-500": (FAILED, "watch", "since the flip"),
    "broken-worker": (FAILED, "worker", "worker ended by itself"),
}
FIRST = {
    "broken-hang": "see what the migrations wait for (pg_stat_activity)",
    "broken-version": "build the image again",
}
"""The first step that a failed release's message recommends, if it recommends more than to fix the cause."""


@pytest.mark.parametrize("tag", BROKEN)
def test_a_bad_release_is_undone_by_itself(droplet: Host, target: Target, show: Show, tag: str) -> None:
    code, step, said = BROKEN[tag]
    before, ran = status(droplet), containers(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        time.sleep(1)
        asked = UnderWay(("release", tag))
        ended = asked.end()
        time.sleep(1)
    show(f"{tag}: exit {ended[0]}, {ended[1].splitlines()[-1].strip()}\n{running.tally.table()}")
    assert ended[0] == code, ended[1]
    assert said in ended[1].splitlines()[-1]
    if code == FAILED:
        first = FIRST.get(tag, "fix the cause")
        next_step = f"{before['release']['tag']} is still live. Next: {first}, then stackctl release {tag}"
        assert next_step in ended[1].splitlines()[-1]
    failed = [event["step"] for event in asked.events() if event["state"] == "failed"]
    assert failed == [step, "release"]
    if code == FAILED:
        assert any(event["state"] == "log" for event in asked.events()), "the log of the failed container is not shown"
    # Clients can only see a bad answer between the flip and the flip back.
    flipped = [event["ts"] for event in asked.events() if event["step"] == "flip" and event["state"] != "start"]
    if step == "watch":
        assert {lost.outcome for lost in running.tally.lost} == {"500"}
        spell = max(lost.ended for lost in running.tally.lost) - min(lost.began for lost in running.tally.lost)
        assert spell < 3, f"bad answers for {spell:.1f} s, flipped at {flipped}"
    else:
        assert not running.tally.lost
    after = status(droplet)
    assert {key: after[key] for key in ("release", "active", "worker", "kept", "problems")} == {
        key: before[key] for key in ("release", "active", "worker", "kept", "problems")
    }
    assert containers(droplet) == ran


@contextmanager
def unreachable_for_telegram(droplet: Host) -> Iterator[None]:
    """Make the droplet reject Telegram's connections. nginx does not see them, so only Telegram can report errors."""
    rule = f"INPUT --source {by_name('world').ipv4} --protocol tcp --dport 443 --jump REJECT --reject-with tcp-reset"
    machine.inside(DROPLET, "iptables", "--insert", *rule.split())
    try:
        yield
    finally:
        droplet.check_output(f"iptables --delete {rule}")


def test_a_release_that_telegram_complains_of_is_undone(droplet: Host) -> None:
    # Forget earlier errors. The watch ignores Telegram's errors if Telegram already reported errors before the release.
    post("/lab/forget", {})
    deliver_an_update()
    tag = live(droplet)
    asked = UnderWay(("release", another(droplet)))
    asked.reach("watch")
    with unreachable_for_telegram(droplet):
        post("/lab/updates", {"count": 1, "text": "/offers"})
        code, output = asked.end()
        assert code == FAILED, output
        assert "Telegram reports an error: " in output.splitlines()[-1]
        (problem,) = status(droplet)["problems"]
        assert "updates wait at Telegram, which can't deliver them" in problem
    assert not lasting_problems(droplet)
    assert_all_is_well(droplet, tag)


def test_a_missing_registry_is_reported_and_the_live_tag_needs_none(lab: Environment, droplet: Host) -> None:
    world, tag = lab.connect("world", sudo=False), live(droplet)
    world.check_output("systemctl stop docker-registry")
    try:
        code, output = UnderWay(("release", another(droplet))).end()
        assert (code, "cannot pull" in output) == (REFUSED, True)
        assert UnderWay(("release", tag)).end()[0] == 0
    finally:
        world.check_output("systemctl start docker-registry")
    assert_all_is_well(droplet, tag)


@pytest.fixture
def small_backups(droplet: Host) -> Iterator[None]:
    """Give the backups a separate file system with little more space than a release needs."""
    with small_disk(droplet, 330, "/opt/backups"):
        yield


def test_a_full_disk_refuses_a_release_or_undoes_it_during_the_dump(
    droplet: Host, small_backups: None, target: Target
) -> None:
    tag, other = live(droplet), another(droplet)
    droplet.check_output("fallocate -l 200m /opt/backups/ballast")
    code, output = UnderWay(("release", other)).end()
    assert (code, "make room there" in output.splitlines()[-1]) == (REFUSED, True)
    droplet.check_output("rm /opt/backups/ballast")
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", other))
        asked.reach("image")
        fill("/opt/backups")
        code, output = asked.end()
    assert code == FAILED, output
    assert "no space left" in output.lower()
    assert not running.tally.lost
    droplet.check_output("rm /opt/backups/ballast")
    assert_all_is_well(droplet, tag)
    assert UnderWay(("release", other)).end()[0] == 0
    assert_all_is_well(droplet, other)


# releases that are interrupted


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_a_release_killed_at_any_step_serves_and_can_be_finished(
    droplet: Host, target: Target, show: Show, step: str
) -> None:
    tag = another(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", tag))
        asked.reach(step)
        asked.kill()
        code, output = asked.end()
        assert code == KILLED
        assert "the run ended without a result" in output
        reached = asked.last_step()
        again = UnderWay(("release", tag)).end()
    show(f"killed at {step} (it had come to {reached}): {len(running.tally.requests)} served")
    assert again[0] == 0, again[1]
    assert not running.tally.lost
    assert_all_is_well(droplet, tag)


def test_a_rollback_after_a_release_that_was_killed_leads_to_what_was_live(droplet: Host, target: Target) -> None:
    tag = live(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", another(droplet)))
        asked.reach("watch")
        asked.kill()
        assert asked.end()[0] == KILLED
        code, output = UnderWay(("rollback",)).end()
    assert code == 0, output
    assert not running.tally.lost
    assert_all_is_well(droplet, tag)


def test_a_refused_release_after_a_killed_one_recovers_the_live_one(droplet: Host, target: Target) -> None:
    tag = live(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", another(droplet)))
        asked.reach("worker")
        asked.kill()
        assert asked.end()[0] == KILLED
        code, output = UnderWay(("release", "9.9.9")).end()
    assert (code, "the remains of an interrupted release were removed" in output.splitlines()[-1]) == (FAILED, True), (
        output
    )
    assert not running.tally.lost
    assert_all_is_well(droplet, tag)


@pytest.mark.parametrize("step", [step.name for step in ROLLBACK])
def test_a_rollback_that_is_killed_too(droplet: Host, target: Target, step: str) -> None:
    tag = status(droplet)["kept"][1]["tag"]
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("rollback", tag))
        asked.reach(step)
        asked.kill()
        assert asked.end()[0] == KILLED
        again = UnderWay(("rollback", tag)).end()
        if live(droplet) != tag:
            assert again[0] == 0, again[1]
    assert not running.tally.lost
    assert_all_is_well(droplet, live(droplet))


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_the_live_release_keeps_serving_if_docker_stops_at_any_step(
    droplet: Host, target: Target, show: Show, step: str
) -> None:
    tag = another(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        asked = UnderWay(("release", tag))
        asked.reach(step)
        machine.inside(DROPLET, "systemctl", "stop", "docker.socket", "docker.service")
        try:
            code, output = asked.end()
            time.sleep(2)
        finally:
            machine.inside(DROPLET, "systemctl", "start", "docker.socket", "docker.service")
        if code:
            assert "docker" in output.splitlines()[-1].lower(), output
        again = UnderWay(("release", tag)).end()
    show(f"Docker stopped at {step}: exit {code}, {output.splitlines()[-1].strip()}")
    assert again[0] == 0, again[1]
    assert not running.tally.lost
    assert_all_is_well(droplet, tag)


@pytest.mark.parametrize("fault", [machines.reboot, machines.crash])
@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_a_release_interrupted_by_a_reboot_serves_and_can_be_finished(  # noqa: PLR0917
    lab: Environment, droplet: Host, target: Target, show: Show, step: str, fault: Callable[[machine.Machine], None]
) -> None:
    """Only requests during the machine's downtime are lost, and Telegram repeats these requests."""
    tag = another(droplet)
    with load(target, clients=CLIENTS, rate=RATE) as running:
        running.phase("released")
        asked = UnderWay(("release", tag))
        asked.reach(step)
        running.phase(fault.__name__)
        fell = time.time()
        fault(DROPLET)
        asked.end()
        reached = asked.last_step()
        after = lab.reconnect("droplet1")
        after.check_output("systemctl is-system-running --wait")
        active = status(after)["active"]
        names = [name for name in containers(after) if "-worker-" not in name]
        assert names == [f"toogoodtogo-{active}-web-1"]
        came_up = live(after)
        running.phase("released again")
        again = UnderWay(("release", tag)).end()
    told = f"{fault.__name__} at {step} (it had come to {reached}): {came_up} in {active} came up"
    show(f"{told}\n{running.tally.table()}")
    assert again[0] == 0, again[1]
    assert not [request for request in running.tally.of("released").lost if request.ended < fell]
    assert not running.tally.of("released again").lost
    assert_all_is_well(after, tag)


def test_a_dropped_connection_leaves_it_running_and_follow_picks_it_up(droplet: Host) -> None:
    tag = another(droplet)
    asked = UnderWay(("release", tag))
    asked.reach("backup")
    asked.hang_up()
    followed = UnderWay(("release", "--follow")).end()
    assert followed[0] == 0, followed[1]
    assert "preflight" in followed[1]
    assert_all_is_well(droplet, tag)


def test_stopping_its_unit_undoes_it(droplet: Host) -> None:
    tag = live(droplet)
    asked = UnderWay(("release", another(droplet)))
    asked.reach("health")
    droplet.check_output("systemctl stop toogoodtogo-release")
    code, output = asked.end()
    assert (code, "interrupted" in output.splitlines()[-1]) == (FAILED, True)
    assert_all_is_well(droplet, tag)


# a bot that deletes its webhook when it stops


def take_webhook_back() -> None:
    """Delete the webhook, as everybody with the token can."""
    post(f"/bot{read_env_file(ENV_FILE)['TELEGRAM_BOT_TOKEN']}/deleteWebhook", {})


def assert_it_hears(droplet: Host) -> None:
    assert webhook_is_set()
    deliver_an_update()
    assert status(droplet)["problems"] == []


def test_a_bot_that_deletes_its_webhook_keeps_hearing(lab: Environment, droplet: Host) -> None:
    """The webhook is set after an undone release, after a restart of the unit, after a reboot and after a rollback."""
    droplet.check_output("stackctl release deaf")
    assert_it_hears(droplet)
    assert UnderWay(("release", "deaf-broken")).end()[0] == FAILED
    assert_it_hears(droplet)
    droplet.check_output("systemctl stop toogoodtogo.service")
    assert not webhook_is_set(), "the bot did not delete its webhook, so the test proves nothing"
    droplet.check_output("systemctl start toogoodtogo.service")
    assert_it_hears(droplet)
    machines.reboot(DROPLET)
    after = lab.reconnect(DROPLET.name)
    after.check_output("systemctl is-system-running --wait")
    assert_it_hears(after)
    after.check_output("stackctl rollback")
    assert_it_hears(after)


def test_a_deleted_webhook_is_reported_and_mended_by_a_converge(droplet: Host) -> None:
    take_webhook_back()
    told = "somebody called deleteWebhook, so Telegram has no webhook"
    report = json.loads(droplet.run("stackctl status --json").stdout)
    assert [line for line in report["drift"] if line.startswith(told)]
    assert any(name.endswith("if it does not run as declared") for name in converge.planned())
    converge.site()
    assert_it_hears(droplet)
    assert converge.planned() == set()


# This test is last, because no rollback passes a contract migration, so the droplet must be recreated.
def test_a_rollback_past_a_contract_is_refused_with_the_reason(lab: Environment, droplet: Host) -> None:
    try:
        droplet.check_output("stackctl release 1.1.0")
        code, output = UnderWay(("release", "1.3.0")).end()
        assert (code, "1.1.0 is older than the expand before it" in output.splitlines()[-1]) == (REFUSED, True)
        droplet.check_output("stackctl release 1.2.0")
        assert UnderWay(("rollback", "1.1.0")).end()[0] == 0, "an expand migration must not prevent a rollback"
        droplet.check_output("stackctl rollback 1.2.0")
        plan = droplet.check_output("stackctl release 1.3.0 --dry-run")
        assert "no rollback can go further back than the live release" in plan
        assert live(droplet) == "1.2.0"
        droplet.check_output("stackctl release 1.3.0")
        code, output = UnderWay(("rollback", "1.1.0")).end()
        assert (code, "0005 is a contract" in output.splitlines()[-1]) == (REFUSED, True)
        assert UnderWay(("rollback", "1.2.0")).end()[0] == 0
        assert_all_is_well(droplet, "1.2.0")
    finally:
        machines.recreate(DROPLET)
        converge.site()
        lab.reconnect("droplet1").check_output("stackctl release 1.0.0")
