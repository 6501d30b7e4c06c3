"""A restore leaves either the backup's data, or everything as it was before."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state, unfinished_restore
from stackctl.backup import manifest
from stackctl.core import lock
from stackctl.core.program import TIMED_OUT, Result
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.restores import (
    NOW,
    THEN,
    as_it_was,
    assert_restored,
    backups,
    flipped,
    interrupted,
    newest,
    restored,
    running,
    told,
    truncated,
)


def test_a_restore_brings_the_backup_s_data_and_backs_up_the_replaced_data(saved: Droplet) -> None:
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)
    safety = backups(saved, "safety")[-1]
    assert (safety.tables, safety.verified is not None) == (NOW, True)
    # A person can restore the pre-restore backup by its ID.
    assert stackctl(saved, "restore", safety.id, "--yes", safety.id)[0] == 0
    assert (saved.postgres.tables, saved.redis.info["keys"]) == (NOW, "9")


def test_a_restore_closes_the_bot_when_all_is_ready_and_backs_up_the_live_data(saved: Droplet) -> None:
    restored(saved)
    words = [
        *("--exit-on-error --dbname=app_restoring", "schema --json", "pg_dump --format", "--network=none"),
        *("docker stop -t 5", "docker stop -t 7", "BEGIN;", "data.yaml up", "app.yaml up"),
    ]
    positions = [next(i for i, call in enumerate(saved.calls) if word in " ".join(call)) for word in words]
    assert positions == sorted(positions)


def test_a_restore_shows_what_it_would_replace_and_asks(saved: Droplet) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    code, shown = stackctl(saved, "restore", "latest")
    for said in (
        "11 rows in 2 tables now, and 15 rows in 2 tables after the restore",
        "public.offers: 7 now, 12 after",
        "9 keys now, and 5 after the restore",
        "1.2.0 is live now, and 1.2.0 was live when the backup was made",
        "clients get 503 are lost. To prevent such writes, run sudo stackctl maintenance on before",
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


def test_a_restore_without_confirmation_changes_nothing_and_shows_what_to_type(
    saved: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    saved.typed = ""
    code, shown = stackctl(saved, "restore", "latest", "--no-safety")
    assert (code, "the ID of the backup was not repeated. Nothing was changed" in shown) == (2, True), shown
    (typed,) = re.findall(r"sudo stackctl (restore .*)$", shown, re.MULTILINE)
    assert typed.split() == ["restore", wanted, "--no-safety", "--yes", wanted]

    def interrupted(_self: Droplet, _question: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Droplet, "prompt", interrupted)
    code, shown = stackctl(saved, "restore", "latest")
    assert (code, "the run goes on" in shown, as_it_was(saved)) == (1, False, before), shown
    assert shown.splitlines()[-1] == "stackctl restore: the restore was interrupted. Nothing was changed"
    assert stackctl(saved, *typed.split())[0] == 0


def test_latest_is_the_newest_verified_backup_that_no_restore_made(saved: Droplet) -> None:
    wanted = newest(saved)
    stackctl(saved, "release", "1.2.0")  # the release 1.2.0 makes a dump that is not verified
    restored(saved)
    assert stackctl(saved, "restore", "latest", "--yes", wanted)[0] == 0


def test_a_release_s_own_dump_can_be_restored_and_leaves_redis_alone(saved: Droplet) -> None:
    of_release = backups(saved, "release")[-1].id
    saved.postgres.tables = dict(NOW)
    code, shown = stackctl(saved, "restore", of_release, "--yes", of_release)
    assert (code, saved.postgres.tables, saved.redis.info["keys"]) == (0, THEN, "9"), shown
    assert "never verified" in shown


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
    "of another app": (lambda d: told(d, app="other"), 2, "a backup of the app other, not of bot"),
    "little disk": (lambda d: setattr(d, "bytes_free", 100 << 20), 2, "100 MiB left, but a restore may need"),
    "postgres is unwell": (lambda d: d.docker.containers[0].update(health="unhealthy"), 2, "not healthy: postgres"),
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
def test_a_restore_that_fails_before_the_swap_is_undone(tmp_path: Path, name: str) -> None:
    saved = installed(tmp_path)
    # The backup of an older release has pending migrations.
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
    assert (code, "public.offers has 11 rows, but the manifest says 12" in shown) == (1, True)
    assert as_it_was(saved) == before


def test_a_bot_that_does_not_start_on_the_restored_data_is_left_to_a_person(saved: Droplet) -> None:
    """If the bot does not start on the restored data, the data stays and the bot stays closed."""
    saved.failing = {"app.yaml up": Result(1, stderr="no such network")}
    code, shown = restored(saved)
    assert (code, "all data is restored, but" in shown.splitlines()[-1]) == (4, True), shown
    assert (saved.postgres.tables, saved.paths.maintenance.exists()) == (THEN, True)
    code, shown = stackctl(saved, "status")
    assert (code, f"the bot is still closed. Next: sudo stackctl restore {newest(saved)}" in shown) == (4, True)
    saved.failing = {}
    truncated(saved)  # the restore no longer needs the backup's files
    assert restored(saved)[0] == 0
    assert_restored(saved)
    assert len(backups(saved, "safety")) == 1, "the replaced data must be saved only once"


def placed(saved: Droplet) -> str:
    """Restore a backup with which the live release does not start. Return the ID of the pre-restore backup."""
    saved.failing = {"app.yaml up": Result(1, stderr="no such network")}
    assert restored(saved)[0] == 4
    saved.failing = {}
    return backups(saved, "safety")[-1].id


def test_if_the_live_release_fails_on_restored_data_another_may_start(saved: Droplet) -> None:
    placed(saved)
    assert stackctl(saved, "release", "1.1.0")[0] == 0
    assert saved.paths.maintenance.exists()
    assert restored(saved)[0] == 0
    assert_restored(saved)


def test_if_no_release_starts_on_restored_data_another_backup_is_restored(saved: Droplet) -> None:
    before = as_it_was(saved)
    former = placed(saved)
    assert stackctl(saved, "restore", former, "--yes", former)[0] == 0
    assert as_it_was(saved) == before


def test_if_a_second_restore_fails_too_the_first_one_s_data_stays_and_the_bot_is_closed(
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
def test_a_restore_that_cannot_be_undone_leaves_the_bot_closed(saved: Droplet, part: str) -> None:
    told(saved, redis=manifest.Redis("8.0.2", 4))  # makes the step after the swap fail
    saved.failing = {part: Result(1, stderr="no answer")}
    code, shown = restored(saved)
    assert (code, "Not undone: " in shown.splitlines()[-1]) == (4, True), shown
    assert ({"web", "worker"} & {*running(saved)}, saved.paths.maintenance.exists()) == (set(), True)
    assert stackctl(saved, "status")[0] == 4
    saved.failing = {}
    told(saved, redis=manifest.Redis("8.0.2", 5))
    assert restored(saved)[0] == 0
    assert_restored(saved)


def test_an_undone_restore_keeps_the_revisions_of_the_live_schema(tmp_path: Path) -> None:
    """An undone restore keeps the recorded revisions, which decide which rollbacks are possible."""
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    stackctl(droplet, "backup")
    stackctl(droplet, "release", "1.3.0")
    before = state.load(droplet.paths)
    told(droplet, redis=manifest.Redis("8.0.2", 4))
    assert restored(droplet)[0] == 1
    assert state.load(droplet.paths) == before


def test_data_that_cannot_be_counted_can_be_replaced(saved: Droplet) -> None:
    saved.failing = {"pg_export_snapshot": Result(1, stderr="invalid page in block 7")}
    _, shown = stackctl(saved, "restore", "latest")
    assert "cannot count the rows of app: " in shown


def test_a_look_at_what_it_would_do_waits_for_no_one_and_meddles_with_no_one(saved: Droplet) -> None:
    left = interrupted(saved)
    left.calls.clear()
    with lock.hold(left.paths, "somebody's converge"):
        code, shown = stackctl(left, "restore", "latest")
    assert (code, "somebody's converge" in shown, left.ran("data.yaml up")) == (3, True, []), shown


def test_maintenance_that_was_on_before_stays_on(saved: Droplet) -> None:
    stackctl(saved, "maintenance", "on")
    assert restored(saved)[0] == 0
    assert saved.paths.maintenance.exists()


def test_a_backup_without_a_release_or_worker_starts_nothing(tmp_path: Path) -> None:
    """A restore without a live release starts no container. A new droplet gets its data before its release."""
    droplet = installed(tmp_path, isolated=True)
    stackctl(droplet, "backup")
    code, shown = restored(droplet)
    assert (code, running(droplet)) == (0, ["postgres", "redis"]), shown


def test_a_restore_on_an_isolated_droplet_starts_no_worker(saved: Droplet) -> None:
    config = json.loads(saved.paths.config.read_text()) | {"isolated": True}
    saved.paths.config.write_text(json.dumps(config))
    assert restored(saved)[0] == 0
    assert running(saved) == ["postgres", "redis", "web"]


def test_a_restore_holds_both_locks_to_its_end(saved: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore holds both locks, because a release or converge during the swap would find a mix of databases."""
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
def test_a_restore_is_refused_while_either_lock_is_held(saved: Droplet, name: str, beside: tuple[str, ...]) -> None:
    before, wanted = as_it_was(saved), newest(saved)
    path = getattr(saved.paths, name)
    with lock.exclusive(path, "somebody's restore", 0):
        code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, *beside)
    assert (code, "somebody's restore" in shown) == (3, True), shown
    assert as_it_was(saved) == before


def test_sessions_are_ended_before_their_database_is_renamed(saved: Droplet) -> None:
    saved.postgres.sessions = {"app", "app_restoring"}
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)
