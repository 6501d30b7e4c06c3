"""After a power cut during a restore, the site comes back by itself, with either the former or the restored data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.cli import services
from stackctl.core import lock
from stackctl.core.program import Result
from stackctl.restore import swap
from stackctl.restore.restore import REPLACED
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import killed_at, kills
from tests.support.restores import ALL, NOW, THEN, as_it_was, interrupted, newest, restored, running
from tests.support.status import status, web

STEPS = [step.name for step in REPLACED]
STEPS = STEPS[STEPS.index("load") :]
UNDONE, FINISHED = ["swap", "rdb"], ["start", "health", "open", "forget"]
"""The steps that begin while a marker says that not all data is in place, or that all data is in place."""
DAYS = 24 * 3600.0


def power_cut(droplet: Droplet) -> tuple[int, str]:
    """Reset the machine, and run what systemd runs at its next boot."""
    droplet.reset()
    return stackctl(droplet, "boot")


def assert_works(droplet: Droplet, tables: dict[str, int]) -> None:
    """Check that the bot works with all of this data, and that nothing is left of the restore."""
    keys = {12: "5", 7: "9"}[tables["public.offers"]]
    assert (droplet.postgres.tables, droplet.redis.info["keys"]) == (tables, keys)
    assert (running(droplet), droplet.postgres.beside) == (ALL, {})
    assert not droplet.paths.maintenance.exists()
    assert_nothing_is_left(droplet)
    code, report = status(droplet)
    assert (code, report["problems"], report["drift"]) == (0, [], [])


def assert_nothing_is_left(droplet: Droplet) -> None:
    assert not droplet.paths.restoring.exists()
    assert {path.name for path in (droplet.paths.var / "data/redis").iterdir()} <= {"dump.rdb"}
    assert not list(droplet.paths.backups.glob("*.partial"))
    assert not [one for one in droplet.docker.containers if one["one_off"]]
    assert not droplet.docker.throwaway


def assert_closed(droplet: Droplet, problem: str) -> None:
    """Check that neither web nor worker runs, that clients get 503, and that status names the remedy."""
    assert not {"web", "worker"} & {*running(droplet)}
    assert droplet.paths.maintenance.exists()
    assert droplet.paths.restoring.exists()
    code, report = status(droplet)
    assert (code, report["settled_restore"]) == (4, None)
    assert any(problem in line for line in report["problems"]), report["problems"]


def remedy(droplet: Droplet) -> str:
    id_ = newest(droplet)
    return f"the restore of {id_} was interrupted. Next: sudo stackctl restore {id_}, which finishes the restore"


@pytest.mark.parametrize("step", STEPS)
def test_after_a_power_cut_at_any_step_the_site_works_with_one_of_both(saved: Droplet, step: str) -> None:
    left = interrupted(saved, step)
    code, shown = power_cut(left)
    assert code == 0, shown
    assert_works(left, THEN if step in FINISHED else NOW)
    assert (status(left)[1]["settled_restore"] is not None) == (step in UNDONE + FINISHED)
    assert restored(left)[0] == 0
    assert_works(left, THEN)


def test_after_a_power_cut_at_any_moment_the_site_works_with_one_of_both(tmp_path: Path) -> None:
    """The power is cut at each call and event of a restore in turn."""
    droplet = installed(tmp_path / "droplet")
    stackctl(droplet, "release", "1.2.0")
    stackctl(droplet, "backup")
    droplet.postgres.tables, droplet.redis.info["keys"] = dict(NOW), "9"
    wanted, live = newest(droplet), list[bool]()
    for at, left in kills(droplet, "restore", wanted, "--yes", wanted):
        record = unfinished_restore.load(left.paths)
        ended = left.postgres.tables == THEN and not record
        code, shown = power_cut(left)
        assert code == 0, (at, shown)
        live.append(left.postgres.tables == NOW)
        assert live[-1] == (not ended and not (record and record.placed))
        assert_works(left, NOW if live[-1] else THEN)
    assert live == sorted(live, reverse=True)
    assert set(live) == {True, False}


def in_redis(droplet: Droplet) -> Droplet:
    """Cut the power after the swap, while Redis has the restored file but has not started with it."""
    wanted = newest(droplet)
    left = killed_at(droplet, (Stack, "start_data"), "restore", wanted, "--yes", wanted)
    left.killed_at = None
    return left


@pytest.mark.parametrize(("begun", "tables"), [(in_redis, NOW), (lambda d: interrupted(d, "start"), THEN)])
def test_another_power_cut_at_any_moment_of_the_boot_does_no_harm(
    saved: Droplet, begun: Callable[[Droplet], Droplet], tables: dict[str, int]
) -> None:
    left = begun(saved)
    left.reset()
    for at, again in kills(left, "boot"):
        code, shown = power_cut(again)
        assert code == 0, (at, shown)
        assert_works(again, tables)


def test_history_and_status_tell_of_a_restore_that_a_boot_has_undone(saved: Droplet) -> None:
    id_, left = newest(saved), interrupted(saved)
    _, shown = power_cut(left)
    said = (
        f"the restore of {id_} was interrupted: the droplet or bot.service was restarted. The restore was undone, so "
        f"the data is as before that restore. Next: sudo stackctl restore {id_}"
    )
    assert said in shown
    assert said in stackctl(left, "history")[1]
    code, report = status(left)
    assert (code, report["settled_restore"]["message"]) == (0, said)
    assert re.search(f"^restore +20[-0-9T:]+: {re.escape(said)}$", stackctl(left, "status")[1], re.MULTILINE)
    past = json.loads(stackctl(left, "history", "--json")[1])[-1]
    assert (past["op"], past["state"], past["code"], past["message"]) == ("boot", "done", 0, said)
    assert ("settle", "done", said) in [(one["step"], one["state"], one["message"]) for one in past["steps"]]
    stackctl(left, "boot")
    assert status(left)[1]["settled_restore"]["message"] == said
    assert json.loads(stackctl(left, "history", "--json")[1])[-1]["message"] == ""


def test_status_tells_of_it_until_the_next_restore(saved: Droplet) -> None:
    left = interrupted(saved)
    power_cut(left)
    stackctl(left, "restore", newest(left), "--yes", "no")
    assert status(left)[1]["settled_restore"] is None


@pytest.mark.parametrize(("days", "told"), [(6.9, True), (7.1, False)])
def test_status_tells_of_it_for_a_week(saved: Droplet, days: float, *, told: bool) -> None:
    left = interrupted(saved)
    power_cut(left)
    left.seconds += days * DAYS
    assert (status(left)[1]["settled_restore"] is not None) == told


@pytest.mark.parametrize("step", ["rdb", "open"])
def test_a_boot_leaves_maintenance_on_if_it_was_on_before_the_restore(saved: Droplet, step: str) -> None:
    stackctl(saved, "maintenance", "on")
    left = interrupted(saved, step)
    assert power_cut(left)[0] == 0
    assert left.paths.maintenance.exists()
    assert (running(left), status(left)[0]) == (ALL, 0)
    assert_nothing_is_left(left)


@pytest.mark.parametrize("step", ["rdb", "open"])
def test_a_boot_settles_the_restore_of_an_isolated_droplet(saved: Droplet, step: str) -> None:
    saved.paths.config.write_text(json.dumps(json.loads(saved.paths.config.read_text()) | {"isolated": True}))
    left = interrupted(saved, step)
    assert power_cut(left)[0] == 0
    assert (running(left), left.paths.maintenance.exists()) == (["postgres", "redis", "web"], False)
    assert left.postgres.tables == (NOW if step == "rdb" else THEN)
    assert_nothing_is_left(left)


@pytest.mark.parametrize("step", ["rdb", "open"])
def test_a_boot_settles_the_restore_of_a_droplet_without_a_release(tmp_path: Path, step: str) -> None:
    droplet = installed(tmp_path, isolated=True)
    stackctl(droplet, "backup")
    droplet.postgres.tables = dict(NOW)
    left = interrupted(droplet, step)
    assert power_cut(left)[0] == 0
    assert (running(left), left.paths.maintenance.exists()) == (["postgres", "redis"], False)
    assert left.postgres.tables == (NOW if step == "rdb" else THEN)
    assert_nothing_is_left(left)


@pytest.mark.parametrize("step", ["rdb", "open"])
def test_a_copy_neither_undoes_nor_finishes_a_restore(saved: Droplet, step: str) -> None:
    left = interrupted(saved, step)
    left.paths.config.write_text(json.dumps(json.loads(left.paths.config.read_text()) | {"instance_id": "original"}))
    left.paths.instance_id.parent.mkdir(parents=True)
    left.paths.instance_id.write_text("another\n")
    record, beside = unfinished_restore.load(left.paths), dict(left.postgres.beside)
    assert power_cut(left)[0] == 0
    assert (unfinished_restore.load(left.paths), left.postgres.beside) == (record, beside)
    assert (running(left), left.paths.maintenance.exists()) == (["postgres", "redis"], True)
    left.paths.instance_id.write_text("original\n")  # control: this is the droplet itself
    assert power_cut(left)[0] == 0
    assert_works(left, NOW if step == "rdb" else THEN)


def test_an_app_that_docker_has_started_does_not_work_on_partly_restored_data(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")  # in this step, the databases have already been swapped
    web(left)["state"] = "running"
    left.calls.clear()
    assert power_cut(left)[0] == 0
    lines = [" ".join(call) for call in left.calls]
    words = [f"docker stop -t 5 {web(left)['id']}", "data.yaml up", 'RENAME TO "app_restoring"', "app.yaml up"]
    positions = [next(at for at, line in enumerate(lines) if word in line) for word in words]
    assert positions == sorted(positions)


def test_redis_starts_with_its_former_files(saved: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may not be able to load the files of a restore that was cut short."""
    left, seen, run = in_redis(saved), list[str](), Droplet.run

    def look(self: Droplet, argv: Any, *rest: Any, **more: Any) -> Result:
        if "data.yaml up" in " ".join(argv):
            seen.append((self.paths.var / "data/redis/dump.rdb").read_text())
        return run(self, argv, *rest, **more)

    monkeypatch.setattr(Droplet, "run", look)
    assert (left.paths.var / "data/redis/dump.rdb").read_text() == "5"
    assert power_cut(left)[0] == 0
    assert set(seen) == {"9"}


def test_a_release_on_the_restored_data_keeps_the_revisions_it_has_applied(tmp_path: Path) -> None:
    """If the live release does not start on the restored data, another release may migrate that data."""
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    stackctl(droplet, "backup")
    droplet.failing = {"app.yaml up": Result(1, stderr="no such network")}
    assert restored(droplet)[0] == 4
    droplet.failing = {}
    assert stackctl(droplet, "release", "1.2.0")[0] == 0
    migrated = state.load(droplet.paths).revisions
    assert [one.revision for one in migrated] == ["0001", "0002"]
    assert power_cut(droplet)[0] == 0
    assert (state.load(droplet.paths).revisions, droplet.paths.restoring.exists()) == (migrated, False)


def test_a_power_cut_before_the_restored_revisions_are_recorded(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    stackctl(droplet, "backup")
    stackctl(droplet, "release", "1.2.0")
    assert stackctl(droplet, "rollback")[0] == 0
    assert [one.revision for one in state.load(droplet.paths).revisions] == ["0001", "0002"]
    wanted = newest(droplet)
    left = killed_at(droplet, (swap, "record_revisions"), "restore", wanted, "--yes", wanted)
    left.killed_at = None
    assert power_cut(left)[0] == 0
    assert [one.revision for one in state.load(left.paths).revisions] == ["0001"]


# what keeps the bot closed


def test_if_postgresql_does_not_start_the_bot_stays_closed(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")
    left.failing = {"data.yaml up": Result(1, stderr="no space left on device")}
    code, shown = power_cut(left)
    assert (code, "no space left on device" in shown.splitlines()[-1]) == (1, True), shown
    assert_closed(left, remedy(left))
    left.failing = {}
    assert stackctl(left, "boot")[0] == 0
    assert_works(left, NOW)


def test_a_boot_does_not_wait_for_ever_for_data_services_that_are_not_well(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")
    for container in left.docker.of("bot-data"):
        container["health"] = "unhealthy"
    before = left.seconds
    assert power_cut(left)[0] == 1
    assert left.seconds - before < 3 * json.loads(left.paths.config.read_text())["healthy_timeout"]
    assert_closed(left, remedy(left))


@pytest.mark.parametrize("how", ["no answer", "the former database is gone"])
def test_if_the_databases_cannot_be_swapped_back_the_bot_stays_closed(saved: Droplet, how: str) -> None:
    left = interrupted(saved, "rdb")
    if how == "no answer":
        left.failing = {'RENAME TO "app_restoring"': Result(1, stderr=how)}
    else:
        left.postgres.beside.pop("app_replaced")
    code, shown = power_cut(left)
    assert (code, running(left)) == (0, ["postgres", "redis"]), shown
    assert_closed(left, remedy(left))
    left.failing = {}
    assert restored(left)[0] == 0
    assert_works(left, THEN)


@pytest.mark.parametrize(("step", "kept"), [("swap", "app_restoring"), ("rdb", "app_replaced")])
def test_with_an_unreadable_marker_the_bot_stays_closed(saved: Droplet, step: str, kept: str) -> None:
    left = interrupted(saved, step)
    left.paths.restoring.write_text("{")
    code, shown = power_cut(left)
    assert (code, running(left)) == (0, ["postgres", "redis"]), shown
    assert_closed(left, f"{left.paths.restoring} can't be read")
    assert {kept} == {*left.postgres.beside}, "a database was dropped, although nobody knows what it contains"


def test_if_the_database_is_on_another_host_now_the_bot_stays_closed(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")
    left.paths.config.write_text(json.dumps(json.loads(left.paths.config.read_text()) | {"data": None}))
    code, shown = power_cut(left)
    assert (code, "the database is on another host" in shown) == (0, True), shown
    assert_closed(left, remedy(left))


def test_if_the_app_does_not_start_on_the_restored_data_the_bot_stays_closed(saved: Droplet) -> None:
    left = interrupted(saved, "start")
    left.failing = {"app.yaml up": Result(1, stderr="no such network")}
    assert power_cut(left)[0] == 1
    said = f"the bot is still closed. Next: sudo stackctl restore {newest(left)}"
    assert left.paths.maintenance.exists()
    assert (status(left)[0], said in stackctl(left, "status")[1]) == (4, True)
    left.failing = {}
    assert stackctl(left, "boot")[0] == 0
    assert_works(left, THEN)


def test_if_the_app_does_not_start_on_its_former_data_the_restore_is_undone_all_the_same(saved: Droplet) -> None:
    """The app may fail at a boot for other reasons. If the app starts later, the site works without a person."""
    left = interrupted(saved, "rdb")
    left.failing = {"app.yaml up": Result(1, stderr="no such network")}
    assert power_cut(left)[0] == 1
    assert (left.paths.maintenance.exists(), left.paths.restoring.exists()) == (False, False)
    left.failing = {}
    assert stackctl(left, "boot")[0] == 0
    assert_works(left, NOW)


def test_a_boot_settles_nothing_while_another_run_holds_the_lock(
    saved: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted(saved, "rdb")
    before = as_it_was(left)
    monkeypatch.setattr(services, "BOOT_LOCK_TIMEOUT_S", 0)
    with lock.hold(left.paths, "somebody's restore"):
        code, shown = stackctl(left, "boot")
    assert (code, "somebody's restore" in shown, as_it_was(left)) == (3, True, before), shown


# a restore that was killed before it closed the bot


@pytest.mark.parametrize("beside", [(), ("--to-database", "lost")])
@pytest.mark.parametrize("step", ["load", "count"])
def test_a_boot_drops_the_database_of_a_restore_that_was_cut_short(
    saved: Droplet, beside: tuple[str, ...], step: str
) -> None:
    stackctl(saved, "restore", "latest", "--to-database", "mine")
    left = interrupted(saved, step, *beside)
    assert ("_restoring" in " ".join(left.postgres.beside)) == (step == "count")
    assert power_cut(left)[0] == 0
    assert left.postgres.beside.keys() == {"mine"}
    left.postgres.beside.clear()
    assert_works(left, NOW)


def test_a_boot_does_not_fail_if_that_database_cannot_be_dropped(saved: Droplet) -> None:
    left = interrupted(saved, "count")
    left.failing = {"DROP DATABASE": Result(1, stderr="no answer")}
    assert power_cut(left)[0] == 0
    assert (running(left), status(left)[0]) == (ALL, 0)
    left.failing = {}
    assert stackctl(left, "backup")[0] == 0
    assert not left.postgres.beside


def test_a_boot_removes_what_a_killed_migration_and_a_killed_backup_have_left(saved: Droplet) -> None:
    saved.docker.create("bot-blue", "migrate", web(saved)["image"], {}, one_off=True)
    (saved.paths.backups / "20251123T110000.000Z.partial").mkdir()
    assert power_cut(saved)[0] == 0
    assert_works(saved, NOW)
