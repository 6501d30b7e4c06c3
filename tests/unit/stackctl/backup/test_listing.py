"""status and `stackctl list-backups` show the backups and the checks of the data."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from stackctl.cli import timers
from stackctl.core import lock
from stackctl.core.program import Result
from stackctl.services import postgres
from tests.support.backups import looking, problems
from tests.support.fakes.droplet import Droplet, installed, stackctl


def test_status_tells_of_a_backup_that_is_overdue(live: Droplet) -> None:
    assert problems(live) == []  # no backup is due yet
    live.paths.backup_stamp.parent.mkdir(parents=True)
    live.paths.backup_stamp.touch()
    age(live.paths.backup_stamp, live.now())
    live.seconds += 26 * 3600 - 60
    assert problems(live) == []
    live.seconds += 120
    assert problems(live) == [
        "there is no backup yet. Next: sudo journalctl -u bot-backup.service, then sudo stackctl backup",
    ]
    stackctl(live, "backup")
    assert problems(live) == []
    live.seconds += 26 * 3600
    (line,) = problems(live)
    assert line.startswith("the last verified backup is from 2025-11-24 14:")
    live.seconds -= 60 * 3600  # the backup has a date in the future after this change
    assert problems(live) == [line]


def age(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_status_tells_of_saves_that_fail(live: Droplet) -> None:
    live.redis.info |= {"rdb_last_bgsave_status": "err", "aof_last_write_status": "ok"}
    assert problems(live) == [
        "Redis could not save its data (rdb_last_bgsave_status). Next: free disk space, then stackctl logs redis",
    ]
    live.redis.info = {"-NOAUTH Authentication required.": ""}
    (line,) = problems(live)
    assert line.startswith("the check of Redis's saves failed")


def test_status_tells_of_files_that_are_not_whole_until_they_are(live: Droplet) -> None:
    live.failing["pg_amcheck"] = Result(2, "heap table app.public.offers, block 0: xmin is in the future\n")
    code, shown = stackctl(live, "amcheck")
    assert (code, "xmin is in the future" in shown) == (4, True)
    (line,) = problems(live)
    assert "PostgreSQL's files are damaged. Next: sudo cat" in line
    assert "xmin is in the future" in live.paths.amcheck_failure.read_text()
    live.failing["pg_amcheck"] = Result(1, stderr="Error response from daemon: container x is not running\n")
    code, shown = stackctl(live, "amcheck")
    assert (code, "pg_amcheck did not finish: Error response from daemon" in shown) == (1, True)
    assert problems(live) == [line], "the earlier finding must still be reported"
    live.failing.clear()
    assert stackctl(live, "amcheck")[0] == 0
    assert problems(live) == []


@pytest.mark.parametrize("code", [1, 124, 137])
def test_a_look_that_came_to_no_end_found_nothing(live: Droplet, code: int) -> None:
    live.failing["pg_amcheck"] = Result(code, stderr="FATAL: the database system is shutting down\n")
    assert stackctl(live, "amcheck")[0] == 1
    assert (live.paths.amcheck_failure.exists(), problems(live)) == (False, [])


def test_a_release_does_not_wait_for_the_weekly_look_and_ends_it_before_it_migrates(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release ends the weekly check, because a migration would wait for the checked table and then give up."""
    with looking(monkeypatch, live) as seen:
        assert stackctl(live, "amcheck")[0] == 0
    assert seen == [[False, True]]
    (looked,) = live.ran("pg_amcheck")
    assert f"PGAPPNAME={postgres.DUMPS}" in looked
    live.calls.clear()
    with lock.exclusive(live.paths.backup_lock, "the weekly look", 0):
        assert stackctl(live, "release", "1.2.0")[0] == 0
    asked = [" ".join(call) for call in live.calls]
    ends = f"pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{postgres.DUMPS}'"
    ended = next(number for number, line in enumerate(asked) if ends in line)
    assert ended < next(number for number, line in enumerate(asked) if "bot-migrate-" in line)


def missed(droplet: Droplet) -> list[str]:
    return [line for line in problems(droplet) if line.startswith("no check of PostgreSQL's files")]


@pytest.mark.parametrize("cause", ["it fails", "another is at work"])
def test_checks_that_never_finish_are_reported(live: Droplet, cause: str) -> None:
    assert missed(live) == [], "no check is due yet"
    live.seconds += 30 * 86400
    if cause == "it fails":
        live.failing["pg_amcheck"] = Result(1, stderr="FATAL: the database system is shutting down\n")
        assert stackctl(live, "amcheck")[0] == 1
    else:
        with (
            lock.exclusive(live.paths.backup_lock, "ada's stackctl backup", 0),
            pytest.MonkeyPatch.context() as patched,
        ):
            patched.setattr(timers, "AMCHECK_LOCK_TIMEOUT_S", 0)
            assert stackctl(live, "amcheck")[0] == 3
    assert missed(live) == []
    live.seconds += 15 * 86400 + 60
    (line,) = missed(live)
    assert "since 2025-12-23. Next: sudo journalctl -u bot-amcheck.service, then sudo systemctl start" in line
    live.failing["pg_amcheck"] = Result(2, "heap table app.public.offers, block 0: xmin is in the future\n")
    stackctl(live, "amcheck")
    assert missed(live) == [], "a check that found damage has finished"
    live.seconds += 16 * 86400
    assert missed(live)
    live.paths.config.write_text(json.dumps(json.loads(live.paths.config.read_text()) | {"isolated": True}))
    assert missed(live) == [], "an isolated droplet runs no timers"


def test_backups_are_listed_newest_first(live: Droplet) -> None:
    stackctl(live, "backup")
    (live.paths.backups / "20250101T000000.000Z").mkdir()
    _, shown = stackctl(live, "list-backups")
    header, newest, oldest, unreadable = shown.splitlines()
    assert header.split() == ["id", "reason", "MB", "rows", "verified", "off-site", "release"]
    assert newest.split()[1:4] == ["asked", "0.0", "15"]
    assert "in 0." in newest
    assert newest.endswith("no        1.0.0")
    assert oldest.split()[1:] == ["release", "0.0", "15", "no", "no", "none"]
    assert unreadable.endswith(
        "20250101T000000.000Z/manifest.json is missing. Next: sudo stackctl backup, then remove the invalid backup"
    )
    (first, second) = json.loads(stackctl(live, "list-backups", "--json")[1])
    assert (first["reason"], second["tables"]) == ("release", live.postgres.tables)


def test_without_any_it_says_how_to_make_one(tmp_path: Path) -> None:
    assert "there is no backup yet. Next: sudo stackctl backup" in stackctl(installed(tmp_path), "list-backups")[1]
