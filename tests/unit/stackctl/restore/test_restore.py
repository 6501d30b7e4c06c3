"""A restore on a droplet in memory: the backup's data, or all as it was; killed anywhere, it can be finished."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup import manifest, verify
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import download
from stackctl.backup.stored import Snapshot, Stored
from stackctl.core import lock
from stackctl.core.errors import FailedError
from stackctl.core.program import TIMED_OUT, Result
from stackctl.restore import restore
from tests.support.fakes.droplet import CONFIG, Droplet, installed, killed, kills, stackctl
from tests.support.planted import PLANTED, SECRET

THEN, NOW = {"public.offers": 12, "public.users": 3}, {"public.offers": 7, "public.users": 4}


@pytest.fixture
def saved(tmp_path: Path) -> Droplet:
    """1.2.0 is live, its data backed up; since then rows came and went, and keys."""
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.2.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    droplet.postgres.tables = dict(NOW)
    droplet.redis.info["keys"] = "9"
    droplet.calls.clear()
    return droplet


def backups(droplet: Droplet, reason: str = "asked") -> list[Manifest]:
    return [one for one in manifest.every(droplet.paths.backups) if one.reason == reason]


def newest(droplet: Droplet) -> str:
    return backups(droplet)[-1].id


def restored(droplet: Droplet, *more: str) -> tuple[int, str]:
    wanted = newest(droplet)
    return stackctl(droplet, "restore", wanted, "--yes", wanted, *more)


def running(droplet: Droplet) -> list[str]:
    return sorted(c["service"] for c in droplet.docker.containers if c["state"] == "running")


ALL = ["postgres", "redis", "web", "worker"]


def as_it_was(droplet: Droplet) -> dict[str, Any]:
    """All that a restore which comes to nothing must leave alone."""
    return {
        "tables": droplet.postgres.tables,
        "beside": droplet.postgres.beside,
        "keys": droplet.redis.info["keys"],
        "schema": droplet.postgres.schema,
        "running": running(droplet),
        "maintenance": droplet.paths.maintenance.exists(),
        "under way": unfinished_restore.load(droplet.paths),
        "state": state.load(droplet.paths),
    }


def assert_restored(droplet: Droplet) -> None:
    assert (droplet.postgres.tables, droplet.redis.info["keys"]) == (THEN, "5")
    assert (running(droplet), droplet.postgres.beside, unfinished_restore.load(droplet.paths)) == (ALL, {}, None)
    assert not droplet.paths.maintenance.exists()
    assert [path.name for path in (droplet.paths.var / "data/redis").iterdir()] == ["dump.rdb"]
    assert stackctl(droplet, "status")[0] == 0


def test_the_data_is_the_backup_s_and_what_gave_way_is_a_backup_of_its_own(saved: Droplet) -> None:
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)
    safety = backups(saved, "safety")[-1]
    assert (safety.tables, safety.verified is not None) == (NOW, True)
    # And back again, by its name.
    assert stackctl(saved, "restore", safety.id, "--yes", safety.id)[0] == 0
    assert (saved.postgres.tables, saved.redis.info["keys"]) == (NOW, "9")


def test_the_bot_is_closed_once_all_is_ready_and_what_gives_way_is_saved(saved: Droplet) -> None:
    restored(saved)
    words = [
        *("--exit-on-error --dbname=app_restoring", "schema --json", "pg_dump --format", "--network=none"),
        *("docker stop -t 5", "docker stop -t 7", "BEGIN;", "data.yaml up", "app.yaml up"),
    ]
    positions = [next(i for i, call in enumerate(saved.calls) if word in " ".join(call)) for word in words]
    assert positions == sorted(positions)


def test_it_shows_what_it_would_replace_and_waits_for_a_yes(saved: Droplet) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    code, shown = stackctl(saved, "restore", "latest")
    for said in (
        "11 rows in 2 tables now, 15 in 2 after the restore",
        "public.offers: 7 now, 12 after",
        "9 keys now, 5 after the restore",
        "1.2.0 now, 1.2.0",
        "clients get 503 are lost. If that matters, run sudo stackctl maintenance on first",
    ):
        assert said in shown
    assert (code, f"--yes {wanted}" in shown.splitlines()[-1]) == (2, True), shown
    saved.typed = "yes"
    assert stackctl(saved, "restore", "latest")[0] == 2
    assert stackctl(saved, "restore", wanted, "--yes", "20251123T120000.000Z")[0] == 2
    assert as_it_was(saved) == before
    saved.typed = wanted
    assert stackctl(saved, "restore", "latest")[0] == 0
    assert_restored(saved)


def test_who_types_nothing_changes_nothing_and_is_told_what_to_type(
    saved: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    saved.typed = ""
    code, shown = stackctl(saved, "restore", "latest", "--no-safety")
    assert (code, "it was not confirmed. Nothing was changed" in shown) == (2, True), shown
    (typed,) = re.findall(r"sudo stackctl (restore .*)$", shown, re.MULTILINE)
    assert typed.split() == ["restore", wanted, "--no-safety", "--yes", wanted]

    def interrupted(_self: Droplet, _question: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Droplet, "answer", interrupted)
    code, shown = stackctl(saved, "restore", "latest")
    assert (code, "it goes on" in shown, as_it_was(saved)) == (1, False, before), shown
    assert shown.splitlines()[-1] == "stackctl restore: interrupted: nothing was changed"
    assert stackctl(saved, *typed.split())[0] == 0


def test_latest_is_the_newest_that_was_restored_for_proof_and_no_restore_made(saved: Droplet) -> None:
    wanted = newest(saved)
    stackctl(saved, "release", "1.2.0")  # with a dump of its own, which nobody has restored
    restored(saved)
    assert stackctl(saved, "restore", "latest", "--yes", wanted)[0] == 0


def test_a_release_s_own_dump_can_be_restored_and_leaves_redis_alone(saved: Droplet) -> None:
    of_release = backups(saved, "release")[-1].id
    saved.postgres.tables = dict(NOW)
    code, shown = stackctl(saved, "restore", of_release, "--yes", of_release)
    assert (code, saved.postgres.tables, saved.redis.info["keys"]) == (0, THEN, "9"), shown
    assert "never verified" in shown


def truncated(droplet: Droplet) -> None:
    path = droplet.paths.backup(newest(droplet)) / "postgres.dump"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(droplet: Droplet) -> None:
    path = droplet.paths.backup(newest(droplet)) / "redis.rdb"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def told(droplet: Droplet, **changes: Any) -> None:
    """The backup's manifest says something else."""
    directory = droplet.paths.backup(newest(droplet))
    manifest.save(directory, replace(manifest.load(directory), **changes))


def fails(part: str, said: str, code: int = 1) -> Any:
    def break_it(droplet: Droplet) -> None:
        droplet.failing = {part: Result(code, stderr=said)}

    return break_it


BROKEN: dict[str, tuple[Any, int, str]] = {
    "no such backup": (lambda d: shutil.rmtree(d.paths.backup(newest(d))), 2, "there is no backup '2025"),
    "no manifest": (lambda d: (d.paths.backup(newest(d)) / "manifest.json").unlink(), 1, "manifest.json is missing"),
    "a file is cut short": (truncated, 2, "postgres.dump has"),
    "a bit is flipped": (flipped, 2, "redis.rdb was changed since it was written"),
    "of a newer PostgreSQL": (
        lambda d: told(d, postgres=manifest.Postgres("18.1", "app", 7)),
        2,
        "PostgreSQL 18, but 17 is running",
    ),
    "of a newer Redis": (lambda d: told(d, redis=manifest.Redis("8.2.0", 5)), 2, "Redis 8.2.0, but 8.0.2 is running"),
    "of another app": (lambda d: told(d, app="other"), 2, "a backup of another app: other, not bot"),
    "little disk": (lambda d: setattr(d, "bytes_free", 100 << 20), 2, "100 MiB left, a restore may need"),
    "postgres is unwell": (lambda d: d.docker.containers[0].update(health="unhealthy"), 2, "postgres not healthy"),
    "what is there can't be dumped": (fails("pg_dump ", "invalid page in block 7"), 1, "invalid page in block 7"),
    "the worker doesn't stop": (fails("docker stop -t 7", "no answer"), 1, "a container doesn't stop: no answer"),
    "no database can be made": (fails("CREATE DATABASE", "no space left"), 1, "no space left"),
    "the dump can't be loaded": (fails("--dbname=app_restoring", "out of shared memory"), 1, "out of shared memory"),
    "migration fails": (fails("bot-migrate-", "KeyError: revision", 3), 1, "migrations failed (exit code 3)"),
    "migration hangs": (fails("bot-migrate-", "", TIMED_OUT), 1, "took longer than 10 s"),
    "somebody holds the database": (fails("BEGIN;", "is being accessed by other users"), 1, "accessed by other users"),
    "redis doesn't stop": (fails("docker stop redis", "no answer"), 1, "a container doesn't stop: no answer"),
    "redis loads less": (
        lambda d: told(d, redis=manifest.Redis("8.0.2", 4)),
        1,
        "Redis loaded 5 keys, but the backup has 4",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_fails_before_the_data_is_in_its_place_is_undone(tmp_path: Path, name: str) -> None:
    saved = installed(tmp_path)
    # A backup of an older release, so that there is something to migrate.
    assert stackctl(saved, "release", "1.0.0")[0] == 0
    assert stackctl(saved, "backup")[0] == 0
    assert stackctl(saved, "release", "1.2.0")[0] == 0
    saved.postgres.tables, saved.redis.info["keys"] = dict(NOW), "9"
    wanted = newest(saved)
    break_it, expected, said = BROKEN[name]
    break_it(saved)
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", wanted, "--yes", wanted)
    assert (code, said in shown.splitlines()[-1]) == (expected, True), shown
    assert as_it_was(saved) == before
    saved.failing = {}
    assert not list(saved.paths.backups.glob("*.partial"))


def test_a_restored_database_that_lacks_rows_is_not_taken(saved: Droplet) -> None:
    before = as_it_was(saved)
    saved.postgres.lost = {"public.offers": 11}
    code, shown = restored(saved, "--no-safety")
    assert (code, "public.offers has 11 rows, the snapshot had 12" in shown) == (1, True)
    assert as_it_was(saved) == before


def test_a_bot_that_does_not_start_on_the_restored_data_is_left_to_a_person(saved: Droplet) -> None:
    """The data is what was asked for: it stays, and nobody is let in."""
    saved.failing = {"app.yaml up": Result(1, stderr="no such network")}
    code, shown = restored(saved)
    assert (code, "all data is restored, but" in shown.splitlines()[-1]) == (4, True), shown
    assert (saved.postgres.tables, saved.paths.maintenance.exists()) == (THEN, True)
    code, shown = stackctl(saved, "status")
    assert (code, f"nobody let in yet: sudo stackctl restore {newest(saved)} does" in shown) == (4, True)
    saved.failing = {}
    truncated(saved)  # its files are needed no more
    assert restored(saved)[0] == 0
    assert_restored(saved)
    assert len(backups(saved, "safety")) == 1, "what was live is saved once"


def placed(saved: Droplet) -> str:
    """The data is in its place, and the live release doesn't start on it. The id of what was there before."""
    saved.failing = {"app.yaml up": Result(1, stderr="no such network")}
    assert restored(saved)[0] == 4
    saved.failing = {}
    return backups(saved, "safety")[-1].id


def test_where_the_live_release_does_not_start_on_it_another_one_may(saved: Droplet) -> None:
    placed(saved)
    assert stackctl(saved, "release", "1.1.0")[0] == 0
    assert saved.paths.maintenance.exists()
    assert restored(saved)[0] == 0
    assert_restored(saved)


def test_where_nothing_starts_on_it_another_backup_takes_its_place(saved: Droplet) -> None:
    before = as_it_was(saved)
    former = placed(saved)
    assert stackctl(saved, "restore", former, "--yes", former)[0] == 0
    assert as_it_was(saved) == before


def test_where_another_backup_s_restore_fails_as_well_the_first_one_s_data_stays_and_nobody_is_let_in(
    saved: Droplet,
) -> None:
    former = placed(saved)
    record = unfinished_restore.load(saved.paths)
    saved.failing = {"docker stop redis": Result(1, stderr="no answer")}
    code, shown = stackctl(saved, "restore", former, "--yes", former)
    assert (code, "no answer" in shown.splitlines()[-1]) == (1, True), shown
    assert (saved.postgres.tables, saved.redis.info["keys"], saved.paths.maintenance.exists()) == (THEN, "5", True)
    assert unfinished_restore.load(saved.paths) == record
    saved.failing = {}
    assert restored(saved)[0] == 0
    assert_restored(saved)


@pytest.mark.parametrize("part", ['RENAME TO "app_restoring"', "data.yaml up"])
def test_where_it_can_not_be_undone_nobody_is_let_in_on_half_of_it(saved: Droplet, part: str) -> None:
    told(saved, redis=manifest.Redis("8.0.2", 4))  # so that the step after the swap fails
    saved.failing = {part: Result(1, stderr="no answer")}
    code, shown = restored(saved)
    assert (code, "Not undone: " in shown.splitlines()[-1]) == (4, True), shown
    assert ({"web", "worker"} & {*running(saved)}, saved.paths.maintenance.exists()) == (set(), True)
    assert stackctl(saved, "status")[0] == 4
    saved.failing = {}
    told(saved, redis=manifest.Redis("8.0.2", 5))
    assert restored(saved)[0] == 0
    assert_restored(saved)


def test_what_is_undone_leaves_the_revisions_of_the_live_schema(tmp_path: Path) -> None:
    """They say what a rollback may serve."""
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    stackctl(droplet, "backup")
    stackctl(droplet, "release", "1.3.0")
    before = state.load(droplet.paths)
    told(droplet, redis=manifest.Redis("8.0.2", 4))
    assert restored(droplet)[0] == 1
    assert state.load(droplet.paths) == before


def test_what_can_not_be_counted_any_more_can_be_replaced(saved: Droplet) -> None:
    saved.failing = {"pg_export_snapshot": Result(1, stderr="invalid page in block 7")}
    _, shown = stackctl(saved, "restore", "latest")
    assert "cannot count the rows of app: " in shown


def test_a_look_at_what_it_would_do_waits_for_no_one_and_meddles_with_no_one(saved: Droplet) -> None:
    left = interrupted(saved)
    left.calls.clear()
    with lock.hold(left.paths, "somebody's converge"):
        code, shown = stackctl(left, "restore", "latest")
    assert (code, "somebody's converge" in shown, left.ran("data.yaml up")) == (3, True, []), shown


def test_killed_at_any_moment_the_same_again_finishes_it(tmp_path: Path) -> None:
    """At each call and event in turn; the files it leaves are the real ones."""
    live = list[bool]()
    droplet = installed(tmp_path / "droplet")
    stackctl(droplet, "release", "1.2.0")
    stackctl(droplet, "backup")
    droplet.postgres.tables, droplet.redis.info["keys"] = dict(NOW), "9"
    wanted = newest(droplet)
    for at, left in kills(droplet, "restore", wanted, "--yes", wanted):
        live.append(left.postgres.tables == NOW)
        assert left.postgres.tables in (NOW, THEN), "never half of one"
        if at % 2:  # a reset between the kill and the next try, or none
            left.reset()
            assert stackctl(left, "boot")[0] == 0
        if not left.paths.maintenance.exists():
            assert "web" in running(left)
        code, shown = stackctl(left, "restore", wanted, "--yes", wanted)
        assert code == 0, (at, shown)
        assert_restored(left)
    assert live == sorted(live, reverse=True)
    assert set(live) == {True, False}


def interrupted(droplet: Droplet, at: str = "swap", *beside: str) -> Droplet:
    """Killed before the swap: the bot is closed, and the live data as it was."""

    def killed_here(_work: object) -> str:
        droplet.killed_at = droplet.moments + 1
        droplet.now()
        return ""

    with pytest.MonkeyPatch.context() as patched:
        for table in ("REPLACED", "BESIDE"):
            steps = getattr(restore, table)
            steps = tuple(step._replace(act=killed_here) if step.name == at else step for step in steps)
            patched.setattr(restore, table, steps)
        left = killed(droplet, 0, "restore", newest(droplet), *(beside or ("--yes", newest(droplet))))
    assert left
    left.killed_at = None
    return left


@pytest.mark.parametrize(("beside", "name"), [((), "app"), (("--to-database", "lost"), "lost")])
def test_what_a_restore_leaves_that_was_killed_before_it_closed_anything_goes_with_the_next_backup(
    saved: Droplet, beside: tuple[str, ...], name: str
) -> None:
    stackctl(saved, "restore", "latest", "--to-database", "mine")
    left = interrupted(saved, "count", *beside)
    assert left.postgres.beside.keys() == {"mine", f"{name}_restoring"}
    assert stackctl(left, "release", "1.2.0")[0] == 0
    assert f"{name}_restoring" in left.postgres.beside, "a restore may be under way"
    code, shown = stackctl(left, "backup")
    assert (code, {*left.postgres.beside}, left.postgres.tables) == (0, {"mine"}, NOW), shown


def test_an_interrupted_restore_keeps_the_bot_closed_until_it_is_finished(saved: Droplet) -> None:
    left = interrupted(saved)
    said = f"the restore of {newest(saved)} was interrupted: sudo stackctl restore {newest(saved)} finishes it"
    left.reset()
    assert stackctl(left, "boot")[0] == 0
    assert (running(left), left.paths.maintenance.exists()) == (["postgres", "redis"], True)
    code, report = stackctl(left, "status", "--json")
    assert (code, json.loads(report)["problems"], json.loads(report)["drift"]) == (4, [said], [])
    before = manifest.every(left.paths.backups)
    for verb in (
        *(("backup",), ("backup", "--nightly"), ("release", "1.2.0"), ("rollback", "1.2.0")),
        ("maintenance", "off"),
    ):
        code, shown = stackctl(left, *verb)
        assert (code, said in shown) == (2, True), shown
    assert manifest.every(left.paths.backups) == before
    assert left.paths.maintenance.exists()
    assert "maintenance off" not in stackctl(left, "status")[1]
    code, shown = restored(left)
    assert code == 0, shown
    assert stackctl(left, "backup")[0] == 0
    assert_restored(left)


def test_another_backup_s_restore_undoes_an_interrupted_one_first(saved: Droplet) -> None:
    before = as_it_was(saved)
    left = interrupted(saved)
    former = backups(left, "safety")[-1].id
    shutil.rmtree(left.paths.backup(newest(left)))
    code, shown = stackctl(left, "restore", former, "--yes", former)
    assert (code, "was interrupted, and is undone" in shown) == (0, True), shown
    assert as_it_was(left) == before


def test_an_interrupted_restore_that_can_t_be_finished_is_undone(saved: Droplet) -> None:
    before = as_it_was(saved)
    left = interrupted(saved)
    truncated(left)
    code, shown = restored(left)
    assert (code, "postgres.dump has" in shown.splitlines()[-1]) == (2, True), shown
    assert as_it_was(left) == before


def test_one_that_only_has_to_change_names_needs_no_room(saved: Droplet) -> None:
    left = interrupted(saved)
    left.bytes_free = 100 << 20
    code, shown = restored(left)
    assert code == 0, shown
    assert_restored(left)


def test_maintenance_that_was_on_before_stays_on(saved: Droplet) -> None:
    stackctl(saved, "maintenance", "on")
    assert restored(saved)[0] == 0
    assert saved.paths.maintenance.exists()


def test_of_a_backup_without_a_release_or_worker_nothing_is_started(tmp_path: Path) -> None:
    """A new droplet: its data first, then whatever release it is to have."""
    droplet = installed(tmp_path, isolated=True)
    stackctl(droplet, "backup")
    code, shown = restored(droplet)
    assert (code, running(droplet)) == (0, ["postgres", "redis"]), shown


def test_a_copy_starts_no_worker(saved: Droplet) -> None:
    config = json.loads(saved.paths.config.read_text()) | {"isolated": True}
    saved.paths.config.write_text(json.dumps(config))
    assert restored(saved)[0] == 0
    assert running(saved) == ["postgres", "redis", "web"]


def test_it_holds_both_locks_to_its_end(saved: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release or a converge during a swap of databases finds half of each."""
    seen: dict[str, tuple[str, str]] = {}
    run = Droplet.run

    def look(self: Droplet, argv: Any, *rest: Any, **more: Any) -> Result:
        if self.paths.restoring.exists():
            names = [lock.holder_of(path) for path in (self.paths.lock, self.paths.backup_lock)]
            seen[" ".join(argv)] = (names[0].holder if names[0] else "", names[1].holder if names[1] else "")
        return run(self, argv, *rest, **more)

    monkeypatch.setattr(Droplet, "run", look)
    assert restored(saved)[0] == 0
    assert len(seen) > 10
    assert all(re.search("stackctl restore", holder) for holders in seen.values() for holder in holders)


@pytest.mark.parametrize("beside", [(), ("--to-database", "lost")])
@pytest.mark.parametrize("name", ["lock", "backup_lock"])
def test_whoever_holds_either_lock_has_it_refused(saved: Droplet, name: str, beside: tuple[str, ...]) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    path = getattr(saved.paths, name)
    with lock.exclusive(path, "somebody's errand", 0):
        code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, *beside)
    assert (code, "somebody's errand" in shown) == (3, True), shown
    assert as_it_was(saved) == before


def test_whoever_is_in_a_database_is_thrown_out_before_it_changes_its_name(saved: Droplet) -> None:
    saved.postgres.sessions = {"app", "app_restoring"}
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)


def test_an_interrupted_one_that_can_t_be_undone_is_told_and_another_does_not_begin(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")  # the databases have changed places
    former = backups(left, "safety")[-1].id
    left.failing = {'RENAME TO "app_restoring"': Result(1, stderr="no answer")}
    code, shown = stackctl(left, "restore", former, "--yes", former)
    said = f"cannot undo the restore of {newest(left)}: "
    assert (code, said in shown.splitlines()[-1]) == (4, True), shown
    assert f"sudo stackctl restore {newest(left)}" in shown.splitlines()[-1]
    left.failing = {}
    assert restored(left)[0] == 0
    assert_restored(left)


def test_an_app_without_migrations_is_restored_as_it_is(tmp_path: Path) -> None:
    droplet = installed(tmp_path, migrate=False)
    assert stackctl(droplet, "release", "1.2.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    droplet.postgres.tables = dict(NOW)
    code, shown = restored(droplet)
    assert (code, droplet.postgres.tables) == (0, THEN), shown
    assert not droplet.ran("schema --json")


def test_a_newer_schema_is_refused_by_the_records_before_anybody_is_asked(tmp_path: Path) -> None:
    """The live release was rolled back to; the records know what came after it."""
    droplet = installed(tmp_path)
    for tag in ("1.0.0", "1.2.0"):
        assert stackctl(droplet, "release", tag)[0] == 0
    stackctl(droplet, "backup")
    current = state.load(droplet.paths)
    assert current.release
    assert current.active
    older = replace(current.release, tag="1.0.0", schema="0001")
    later = state.Revision("0003", "contract")
    state.save(
        droplet.paths,
        replace(current.with_colour(current.active, older), revisions=(*current.revisions, later), kept=(older,)),
    )
    droplet.calls.clear()
    code, shown = stackctl(droplet, "restore", newest(droplet))
    said = r"the schema 0002 of \S+ is newer than that of the live release \(1\.0\.0 knows 0001\)"
    assert (code, re.search(said, shown) is not None) == (2, True), shown
    assert not droplet.ran("schema --json")


# what does not restore in one go


def unprovable(droplet: Droplet, *, by_a_check: bool) -> str:
    """A backup of a table whose rows no database takes in one go. Its id."""
    droplet.postgres.tables = dict(THEN)
    droplet.postgres.unloadable = {"public.offers": by_a_check}
    assert stackctl(droplet, "backup")[0] == 1
    droplet.postgres.tables = dict(NOW)
    return next(one.id for one in reversed(backups(droplet)) if one.unproven)


def test_latest_is_no_unproven_one(saved: Droplet) -> None:
    wanted = newest(saved)
    unproven = unprovable(saved, by_a_check=True)
    assert unproven > wanted
    _, shown = stackctl(saved, "restore", "latest")
    assert f"--yes {wanted}" in shown


def test_an_unproven_one_is_restored_by_its_id_with_its_checks_put_aside(saved: Droplet) -> None:
    wanted = unprovable(saved, by_a_check=True)
    code, shown = stackctl(saved, "restore", wanted)
    assert "unverified, because it does not restore in one go: " in shown
    saved.postgres.unloadable = {"public.offers": True}
    code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, "--no-safety")
    assert (code, saved.postgres.tables) == (0, THEN), shown
    sections = [part for call in saved.ran("--section=") for part in call if part.startswith("--section=")]
    assert sections == ["--section=pre-data", "--section=data", "--section=post-data"]
    asked = [call[-1] for call in saved.ran("--username=stackctl_restore")]
    dropped = asked.index("DROP public.offers")
    assert dropped < asked.index("SET search_path = public; ADD public.offers")
    assert asked[-1] == "ANALYZE"


def test_one_of_which_rows_are_lost_is_not_put_in_place_and_can_be_had_beside(saved: Droplet) -> None:
    wanted = unprovable(saved, by_a_check=False)
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, "--no-safety")
    assert (code, "public.offers has 0 rows, the snapshot had 12. Next: --to-database NAME restores" in shown) == (
        1,
        True,
    ), shown
    assert as_it_was(saved) == before
    code, shown = stackctl(saved, "restore", wanted, "--to-database", "lost")
    assert (code, saved.postgres.beside["lost"]) == (0, {"public.offers": 0, "public.users": 3}), shown
    for line in ("COPY failed for table public.offers", "public.offers has 0 rows, the snapshot had 12"):
        assert re.search(f"not restored as it was: .*{line}", shown), shown
    assert "a row" not in shown


def test_where_what_is_live_can_t_be_proven_it_is_kept_and_nothing_is_replaced(saved: Droplet) -> None:
    wanted, before = newest(saved), as_it_was(saved)
    verified = verify._load_postgres

    def of_what_is_live(stack: Stack, server: Any, place: Path, told: Manifest) -> None:
        saved.postgres.unloadable = {"public.offers": True} if told.reason == "safety" else {}
        verified(stack, server, place, told)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verify, "_load_postgres", of_what_is_live)
        code, shown = restored(saved)
    assert (code, "unverified" in shown.splitlines()[-1]) == (1, True), shown
    assert as_it_was(saved) == before
    assert [one.reason for one in manifest.every(saved.paths.backups) if one.unproven] == ["safety"]
    saved.postgres.unloadable = {}
    assert stackctl(saved, "restore", wanted, "--yes", wanted, "--no-safety")[0] == 0


def test_what_is_not_as_it_was_is_told_before_and_at_the_end(saved: Droplet) -> None:
    saved.postgres.dumped_schema = "ALTER TABLE public.offers OWNER TO ada;\n"
    said = "objects of ada (1) will belong to owner"
    _, shown = stackctl(saved, "restore", "latest")
    assert f"plan       progress {said}" in shown
    _, shown = restored(saved)
    assert f"not restored as it was: {said}" in shown


def test_nothing_of_a_dump_is_run_by_the_superuser(saved: Droplet) -> None:
    """Neither here nor in the throwaway; and the loader is gone afterwards."""
    saved.calls.clear()
    assert restored(saved)[0] == 0
    for call in saved.ran("pg_restore"):
        into_one = any(part.startswith("--dbname=") for part in call)
        assert ("--username=stackctl_restore" in call) == into_one
    assert not saved.ran("ON_ERROR_STOP=1 --dbname=postgres --username=postgres")
    assert [call[-1] for call in saved.ran("ANALYZE")] == ["ANALYZE"] * 2
    assert all("--username=stackctl_restore" in call for call in saved.ran("ANALYZE"))


# the schema


def test_an_older_schema_is_migrated_by_the_live_release_before_it_is_live(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    stackctl(droplet, "backup")
    stackctl(droplet, "release", "1.2.0")
    code, shown = restored(droplet)
    assert (code, droplet.postgres.schema) == (0, "0002"), shown
    assert "0002 (expand)" in shown
    assert [one.revision for one in state.load(droplet.paths).revisions] == ["0001", "0002"]


def test_a_newer_schema_than_the_live_release_knows_is_refused(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    for tag in ("1.0.0", "1.2.0", "1.3.0"):
        stackctl(droplet, "release", tag)
    stackctl(droplet, "backup")
    wanted = newest(droplet)
    with pytest.MonkeyPatch.context():
        # Another droplet, whose live release is older, and which has never heard of what came after.
        current = state.load(droplet.paths)
        assert current.release
        older = replace(current.release, tag="1.2.0", schema="0002", image=current.kept[1].image)
        colour = current.active or ""
        known = replace(current.with_colour(colour, older), revisions=current.revisions[:2], kept=(older,))
        state.save(droplet.paths, known)
        droplet.postgres.schema = "0002"
    before = as_it_was(droplet)
    code, shown = stackctl(droplet, "restore", wanted, "--yes", wanted)
    said = r"the schema 0003 of \S+ is newer than that of the live release \(1\.2\.0 knows 0002\)"
    assert (code, re.search(said, shown) is not None) == (2, True), shown
    assert "Next: sudo stackctl release 1.3.0, or restore with --to-database NAME" in shown
    assert as_it_was(droplet) == before
    assert stackctl(droplet, "restore", wanted, "--to-database", "beside")[0] == 0
    # After a rollback the live data itself is ahead, and so are its backups.
    state.save(droplet.paths, replace(known, revisions=current.revisions))
    droplet.postgres.schema = "0003"
    assert stackctl(droplet, "restore", wanted, "--yes", wanted)[0] == 0


# beside, and from elsewhere


def test_beside_the_live_data_it_changes_nothing_of_it(saved: Droplet) -> None:
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", "latest", "--to-database", "lost")
    assert (code, saved.postgres.beside.pop("lost")) == (0, THEN), shown
    assert as_it_was(saved) == before
    assert not saved.ran("docker stop")


@pytest.mark.parametrize(
    "name", ["app", "postgres", "template1", "app_restoring", "x_replaced", "Lost", "a-b", "a" * 54, "1a"]
)
def test_a_name_that_can_t_be_beside_is_refused(saved: Droplet, name: str) -> None:
    code, shown = stackctl(saved, "restore", "latest", "--to-database", name)
    assert (code, "cannot be the name of a new database" in shown) == (2, True)


def test_a_database_that_is_there_is_not_written_over(saved: Droplet) -> None:
    stackctl(saved, "restore", "latest", "--to-database", "lost")
    saved.postgres.beside["lost"] = {"public.mine": 1}
    code, shown = stackctl(saved, "restore", "latest", "--to-database", "lost")
    assert (code, "the database lost exists already" in shown, saved.postgres.beside["lost"]) == (
        2,
        True,
        {"public.mine": 1},
    )


def in_storage(told: Manifest) -> Stored:
    return Stored(Snapshot("a" * 64, told.at, told.id, f"/opt/backups/{told.id}"), told, told.time)


@pytest.fixture
def elsewhere(saved: Droplet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the backups lie off the droplet; the droplet has lost its own."""
    there = saved.paths.var.parents[2] / "elsewhere"
    saved.paths.backups.rename(there)
    saved.paths.backups.mkdir()

    def fetch(_stack: Stack, told: Manifest, directory: Path) -> None:
        shutil.copytree(there / told.id, directory, dirs_exist_ok=True)
        if faults := manifest.differing(directory, manifest.load(directory)):
            raise FailedError(f"what the storage has is damaged: {', '.join(faults)}")

    def everything(_stack: Stack, *ids: str) -> list[Stored]:
        return [in_storage(one) for one in manifest.every(there) if not ids or one.id in ids]

    monkeypatch.setattr(download, "everything", everything)
    monkeypatch.setattr(download, "fetch", fetch)
    return there


def test_a_new_droplet_is_a_copy_before_it_has_data_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "backup")
    there = [in_storage(one) for one in manifest.every(droplet.paths.backups)]
    monkeypatch.setattr(download, "everything", lambda *_: there)
    code, shown = restored(droplet, "--from-offsite")
    assert (code, "Next: make isolate" in shown.splitlines()[-1]) == (2, True), shown
    config = json.loads(droplet.paths.config.read_text()) | {"isolated": True}
    droplet.paths.config.write_text(json.dumps(config))
    assert restored(droplet, "--from-offsite")[0] == 0


def test_from_off_the_droplet(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    assert stackctl(saved, "restore", "latest", "--yes", wanted)[0] == 2, "it isn't here"
    _, shown = stackctl(saved, "restore", "latest", "--from-offsite")
    assert f"sudo stackctl restore {wanted} --from-offsite --yes {wanted}" in shown
    code, shown = stackctl(saved, "restore", "latest", "--from-offsite", "--yes", wanted)
    assert code == 0, shown
    assert_restored(saved)
    assert newest(saved) == wanted, "it is here now"


@pytest.mark.parametrize("name", [manifest.DUMP, manifest.GLOBALS, manifest.STATE, manifest.RDB, "more"])
@PLANTED
def test_what_is_no_file_of_its_own_in_a_backup_is_restored_by_nobody(
    saved: Droplet, tmp_path: Path, name: str, *, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """S8: a FIFO was waited for with both locks held, a link to a secret was placed where uid 999 could read it."""
    outside, path = tmp_path / "outside", saved.paths.backup(newest(saved)) / name
    outside.write_bytes(SECRET)
    path.unlink(missing_ok=True)
    plant(path, outside)
    before = as_it_was(saved)
    code, shown = restored(saved)
    assert (code, as_it_was(saved)) == (2, before), shown
    assert re.search("'more' is not named in the manifest" if name == "more" else f"{name} {kind}", shown)
    assert outside.read_bytes() == SECRET


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "revisions": 7}', "[" * 100_000, "\xff"])
def test_a_state_in_a_backup_that_is_none_is_told_in_a_line(saved: Droplet, text: str) -> None:
    """The author of its files wrote its manifest, too."""
    place = saved.paths.backup(newest(saved))
    (place / manifest.STATE).write_text(text or " ")
    told = manifest.load(place)
    files = {**told.files, manifest.STATE: manifest.describe(place / manifest.STATE)}
    manifest.save(place, replace(told, files=files))
    before = as_it_was(saved)
    code, shown = restored(saved)
    assert (code, as_it_was(saved)) == (1, before), shown
    assert re.search(rf"cannot read .*{manifest.STATE}: ", shown)


@pytest.mark.parametrize(
    "revisions",
    [
        [{"revision": {"a": 1}, "kind": "expand"}],
        [{"revision": "a\x1b[2J", "kind": "expand"}],
        [{"revision": "a", "kind": "none"}],
        [{"revision": "a", "kind": "expand"}] * 10_001,
    ],
    ids=["no text", "an escape", "no kind", "too many"],
)
def test_revisions_that_are_none_do_not_come_into_the_live_state(saved: Droplet, revisions: list[Any]) -> None:
    place = saved.paths.backup(newest(saved))
    remembered = json.loads((place / manifest.STATE).read_text()) | {"revisions": revisions}
    (place / manifest.STATE).write_text(json.dumps(remembered))
    told = manifest.load(place)
    files = {**told.files, manifest.STATE: manifest.describe(place / manifest.STATE)}
    manifest.save(place, replace(told, files=files))
    before = as_it_was(saved)
    code, shown = restored(saved)
    assert (code, as_it_was(saved)) == (1, before), shown
    assert re.search(rf"cannot read .*{manifest.STATE}: ", shown)


@PLANTED
def test_what_redis_lays_in_its_directory_leads_a_restore_nowhere(
    saved: Droplet, tmp_path: Path, *, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """S2, by the whole verb."""
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    outside.chmod(0o600)
    plant(saved.paths.var / "data/redis/dump.rdb.new", outside)
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (SECRET, 0o600)


@pytest.mark.parametrize("damaged", [truncated, flipped])
def test_a_damaged_one_is_fetched_anew(saved: Droplet, elsewhere: Path, damaged: Any) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    shutil.copytree(elsewhere / wanted, saved.paths.backup(wanted))
    damaged(saved)
    assert stackctl(saved, "restore", wanted, "--yes", wanted)[0] == 2
    code, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--yes", wanted)
    assert code == 0, shown
    assert manifest.differing(saved.paths.backup(wanted), manifest.load(saved.paths.backup(wanted))) == []


def test_what_is_here_and_whole_is_taken_whatever_lies_off_the_droplet(saved: Droplet, elsewhere: Path) -> None:
    """An intruder can send another one under its ID."""
    wanted = manifest.every(elsewhere)[-1].id
    shutil.copytree(elsewhere / wanted, saved.paths.backup(wanted))
    forged = elsewhere / wanted / "postgres.dump"
    forged.write_text(json.dumps({"public.offers": 666}))
    told_by_it = manifest.load(elsewhere / wanted)
    files = {**told_by_it.files, forged.name: manifest.describe(forged)}
    manifest.save(elsewhere / wanted, replace(told_by_it, files=files, tables={"public.offers": 666}))
    for more in (("--yes", wanted), ("--to-database", "lost")):
        code, shown = stackctl(saved, "restore", wanted, "--from-offsite", *more)
        assert code == 0, shown
    assert (saved.postgres.tables, saved.postgres.beside["lost"]) == (THEN, THEN)


def test_what_was_fetched_is_restored_elsewhere_before_anything_live_is_touched(
    saved: Droplet, elsewhere: Path
) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    saved.calls.clear()
    assert stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")[0] == 0
    asked = [" ".join(call) for call in saved.calls]
    proven = next(number for number, line in enumerate(asked) if "--dbname=proof" in line and "pg_restore" in line)
    assert proven < next(number for number, line in enumerate(asked) if "CREATE DATABASE" in line and "lost" in line)


@pytest.mark.parametrize("here", [False, True])
def test_what_was_fetched_and_does_not_restore_is_not_taken(saved: Droplet, elsewhere: Path, here: bool) -> None:  # noqa: FBT001
    wanted = manifest.every(elsewhere)[-1].id
    if here:
        shutil.copytree(elsewhere / wanted, saved.paths.backup(wanted))
        truncated(saved)
    kept = saved.paths.backup(wanted) / "postgres.dump"
    there = kept.read_bytes() if here else None
    before = as_it_was(saved)
    saved.postgres.lost = {"public.offers": 11}
    for more in (("--yes", wanted), ("--to-database", "lost")):
        code, shown = stackctl(saved, "restore", wanted, "--from-offsite", *more)
        assert (code, "public.offers has 11 rows, the snapshot had 12" in shown) == (1, True), shown
        assert not [line for line in shown.splitlines() if re.match(" *[0-9.]+ s +load ", line)]
    assert as_it_was(saved) == before
    assert (kept.read_bytes() if kept.exists() else None) == there


@pytest.mark.parametrize("arrives", ["damaged", "unproven"])
def test_what_is_here_stays_until_the_other_one_has_arrived(saved: Droplet, elsewhere: Path, arrives: str) -> None:
    """Damaged as it is: it may be the only one."""
    wanted = manifest.every(elsewhere)[-1].id
    shutil.copytree(elsewhere / wanted, saved.paths.backup(wanted))
    flipped(saved)
    names = sorted(path.name for path in saved.paths.backup(wanted).iterdir())
    if arrives == "damaged":
        (elsewhere / wanted / "postgres.dump").write_text("{}")
    else:
        saved.postgres.unloadable = {"public.offers": True}
    assert stackctl(saved, "restore", wanted, "--from-offsite", "--yes", wanted)[0] == 1
    assert sorted(path.name for path in saved.paths.backup(wanted).iterdir()) == names
    assert not list(saved.paths.backups.glob("*.partial"))


def test_to_fetch_needs_room_for_the_proof(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    saved.bytes_free = 300 << 20
    code, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")
    assert (code, "make room there" in shown.splitlines()[-1]) == (2, True), shown
    assert not list(saved.paths.backups.iterdir())


def test_what_to_type_has_all_that_was_said(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    _, shown = stackctl(saved, "restore", "latest", "--from-offsite")
    assert f"(or make restore with ID={wanted} OFFSITE=yes YES={wanted})" in shown.splitlines()[-1]
    saved.failing = {"CREATE DATABASE": Result(1, stderr="no space left")}
    _, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")
    assert f"sudo stackctl restore {wanted} --from-offsite --to-database lost" in shown.splitlines()[-1]


def test_on_a_droplet_without_a_release_nobody_is_said_to_answer(tmp_path: Path) -> None:
    droplet = installed(tmp_path, isolated=True)
    stackctl(droplet, "backup")
    code, shown = restored(droplet)
    assert code == 0
    for said in ("keeps running until", "nginx answers again", "maintenance on first", "is still live"):
        assert said not in shown
    assert "clients get 503, because this droplet is isolated" in shown


def test_one_that_arrives_damaged_is_not_taken(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    (elsewhere / wanted / "postgres.dump").write_text("{}")
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--yes", wanted)
    assert (code, "what the storage has is damaged: postgres.dump has" in shown) == (1, True), shown
    assert as_it_was(saved) == before
    assert not saved.paths.backup(wanted).exists()


def test_an_app_whose_database_is_elsewhere_is_restored_there(tmp_path: Path) -> None:
    droplet = installed(tmp_path, data=None)
    code, shown = stackctl(droplet, "restore", "latest")
    assert (code, "on another host" in shown) == (2, True)
    assert CONFIG["data"]
