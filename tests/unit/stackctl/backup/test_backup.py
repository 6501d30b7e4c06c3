"""A backup is complete and verified, or absent. A kill leaves only files that the next run removes."""

import json
import os
from datetime import timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import create, manifest, partial, verify
from stackctl.backup.offsite import upload
from stackctl.cli import run
from stackctl.core import lock
from stackctl.core.program import Result
from tests.support.backups import ENDED, every, keep, leftovers, looking, problems, proven, stack_of
from tests.support.fakes.docker import Docker
from tests.support.fakes.droplet import PARSER, Droplet, change, installed, stackctl
from tests.support.fakes.kills import kills
from tests.support.manifests import made
from tests.support.power import Disk


def test_a_backup_has_its_name_only_once_it_is_synced(live: Droplet) -> None:
    """To survive a power cut, a backup's files are synced before its manifest.

    The manifest is synced before the final name.
    """
    backups = live.paths.backups
    disk, looked = Disk(live.paths.var.parents[2]), list[int]()

    def look() -> None:
        for whole in (path for path in backups.iterdir() if manifest.ID.fullmatch(path.name)):
            (told,) = disk.after_a_cut(whole / manifest.NAME)
            assert told, "the manifest was not synced before the rename"
            for name, file in manifest.parse(told, whole).files.items():
                (content,) = disk.after_a_cut(whole / name)
                assert content is not None
                assert sha256(content).hexdigest() == file.sha256
            looked.append(len(looked))

    out = StringIO()
    with disk.watching(look):
        assert run.run(PARSER.parse_args(["backup"]), live.paths, live, out, out) == 0, out.getvalue()
    assert looked


def hostile(directory: Path, outside: Path) -> None:
    """Plant links, a FIFO and a tree too deep for shutil.rmtree, as uid 999 could in its own directory."""
    (directory / "loop").symlink_to(directory)
    os.mkfifo(directory / "fifo")
    here = os.open(directory, os.O_RDONLY)
    os.symlink(outside, "link", dir_fd=here)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.usefixtures("swept")
def test_files_of_a_throwaway_container_are_removed_without_following_links(
    live: Droplet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A throwaway container restores data that an intruder may have written, so its files may be hostile links."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    real, planted = Docker._run, list[str]()

    def run(self: Docker, arguments: list[str]) -> Result:
        for mounted in (one for one in arguments if f"/{verify.WORK}/" in one):
            directory = Path(mounted.partition("source=")[2].partition(",")[0])
            if not planted:
                hostile(directory, outside)
            planted.append(directory.name)
        return real(self, arguments)

    monkeypatch.setattr(Docker, "_run", run)
    code, shown = stackctl(live, "backup")
    assert code == 0, shown
    assert planted == ["postgres", "redis"]
    assert sorted(path.name for path in live.paths.backup(every(live)[-1].id).iterdir()) == [
        *("globals.sql", "manifest.json", "postgres.dump", "redis.rdb", "state.json")
    ]
    assert ([path.name for path in outside.iterdir()], leftovers(live)) == (["file"], [])


@pytest.mark.usefixtures("swept")
def test_leftovers_of_killed_runs_are_removed_without_following_links(live: Droplet, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    for name in ("20251122T000000.000Z.partial", upload.FETCHED):
        directory = live.paths.backups / name / "work/postgres"
        directory.mkdir(parents=True)
        hostile(directory, outside)
    assert stackctl(live, "backup")[0] == 0
    assert [path.name for path in live.paths.backups.iterdir() if not manifest.ID.fullmatch(path.name)] == []
    assert [path.name for path in outside.iterdir()] == ["file"]


def test_a_backup_says_what_it_is(live: Droplet) -> None:
    code, shown = stackctl(live, "backup")
    assert code == 0, shown
    *_, found = every(live)
    assert (found.reason, found.app, found.schema, found.postgres.database) == ("asked", "bot", "0001", "app")
    assert (found.tables, found.redis) == (live.postgres.tables, manifest.Redis("8.0.2", 5))
    assert found.release
    assert found.release["tag"] == "1.0.0"
    assert found.verified
    assert found.verified.rows == 15
    directory = live.paths.backup(found.id)
    assert {path.name for path in directory.iterdir()} == {*found.files, "manifest.json"}
    assert found.files.keys() == {"postgres.dump", "globals.sql", "redis.rdb", "state.json"}
    assert manifest.differing(directory, found) == []
    assert directory.stat().st_mode & 0o777 == 0o700


def test_its_steps_are_the_tables(live: Droplet) -> None:
    stackctl(live, "backup", "--nightly")
    events = [json.loads(line) for line in live.paths.history.read_text().splitlines()]
    done = [event["step"] for event in events if event["state"] == "done" and event["op"] == "backup"]
    assert done == [*(step.name for step in create.BACKUP), "backup"]
    assert every(live)[-1].reason == "nightly"


def test_a_pre_release_backup_is_not_verified(live: Droplet) -> None:
    (found,) = every(live)
    assert (found.reason, found.verified, found.redis, found.tables) == ("release", None, None, live.postgres.tables)
    assert not live.ran("docker run")


def test_each_backup_has_a_higher_number_whatever_the_clock_says(live: Droplet) -> None:
    keep(live, made(41))
    stackctl(live, "backup")
    live.seconds -= 40 * 86400
    stackctl(live, "backup")
    assert [one.sequence for one in every(live)] == [1, 41, 42, 43]


def test_the_counts_are_of_the_dump_s_own_moment(live: Droplet) -> None:
    stackctl(live, "backup")
    (dumped,) = live.ran("pg_dump ")
    assert "--snapshot=00000003-0000001B-1" in dumped
    asked = [" ".join(call) for call in live.calls]
    opened = next(number for number, line in enumerate(asked) if "pg_export_snapshot" in line)
    counted = next(number for number, line in enumerate(asked) if "COPY " in line)
    assert opened < asked.index(" ".join(dumped)) < counted


def test_the_site_s_lock_is_free_during_the_verification(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    with looking(monkeypatch, live) as seen:
        assert stackctl(live, "backup")[0] == 0
    assert seen == [[True, True], [False, True]]


def test_the_second_of_two_is_refused_by_name(live: Droplet) -> None:
    with lock.exclusive(live.paths.backup_lock, "ada's stackctl backup", 0):
        code, shown = stackctl(live, "backup")
    assert (code, "ada's stackctl backup has held the lock" in shown) == (3, True)
    with lock.hold(live.paths, "ada's converge"):
        code, shown = stackctl(live, "backup")
    assert (code, "ada's converge" in shown) == (3, True)
    assert [proven(live), leftovers(live), problems(live)] == [[], [], []]


BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "no room": ({"bytes_free": 300 << 20}, 2, "has 300 MiB left, but a backup may need 525 MiB. Next: make room there"),
    "no PostgreSQL": ({"failing": {"pg_database_size": ENDED}}, 1, "docker exec psql failed: it ended"),
    "no snapshot": ({"failing": {"pg_export_snapshot": ENDED}}, 1, "it ended"),
    "no dump": ({"failing": {"pg_dump ": ENDED}}, 1, "docker exec pg_dump failed: it ended"),
    "a dump that can't be read": ({"failing": {"pg_restore --list": ENDED}}, 1, "can't be read: it ended"),
    "no roles": ({"failing": {"pg_dumpall": ENDED}}, 1, "docker exec pg_dumpall failed: it ended"),
    "no Redis": ({"failing": {"redis-cli --user stackctl --rdb": ENDED}}, 1, "redis-cli --rdb failed: it ended"),
    "a broken RDB": ({"failing": {"redis-check-rdb": ENDED}}, 1, "cannot read redis.rdb: it ended"),
    "no throwaway": ({"failing": {"docker run --detach": ENDED}}, 1, "a throwaway postgres does not start: it ended"),
    "a table that lost a row": (
        {"postgres.lost": {"public.offers": 11}},
        1,
        "the restored data differs from the manifest: public.offers has 11 rows, but the manifest says 12",
    ),
    "a table too many": (
        {"postgres.lost": {"public.x": 0}},
        1,
        "the restored data differs from the manifest: public.x is not in the manifest",
    ),
    "a key that was lost": ({"redis.keys_lost": 1}, 1, "redis.rdb has 5 keys, but Redis loaded 4"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_failed_backup_is_named_and_leaves_nothing(live: Droplet, fault: str) -> None:
    changes, expected, reason = BROKEN[fault]
    before = every(live)
    change(live, changes)
    code, shown = stackctl(live, "backup")
    assert (code, reason in shown) == (expected, True), shown
    assert every(live) == before
    live.failing.clear()
    assert leftovers(live) == []
    assert [line for line in problems(live) if reason in line and "then sudo stackctl backup" in line]
    assert [line for line in problems(live) if "the last backup failed" in line]
    live.bytes_free, live.postgres.lost, live.redis.keys_lost = 20 << 30, {}, 0
    assert stackctl(live, "backup")[0] == 0
    assert problems(live) == []


def test_a_damaged_backup_that_still_restores_does_not_count(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    load = verify._load_redis

    def flip(stack: Stack, place: Path, *rest: Any) -> None:
        (place / manifest.GLOBALS).write_text("[]")
        load(stack, place, *rest)

    monkeypatch.setattr(verify, "_load_redis", flip)
    code, shown = stackctl(live, "backup")
    assert (
        code,
        "the backup was damaged after it was written: globals.sql was changed since it was written" in shown,
    ) == (1, True)
    assert (proven(live), leftovers(live)) == ([], [])


def test_a_pre_restore_backup_is_verified_and_prunes_nothing(live: Droplet) -> None:
    older = [made(number, live.now() - timedelta(days=60 - number)) for number in range(10, 20)]
    for one in older:
        keep(live, one)
    stack = stack_of(live)
    found = create.pre_restore(stack)
    assert (found.reason, proven(live)) == ("safety", [*older, found])


def test_a_backup_killed_at_any_moment_does_not_count_and_the_next_one_is_whole(tmp_path: Path) -> None:
    counted = list[int]()
    for at, left in kills(installed(tmp_path / "droplet"), "backup"):
        assert all(manifest.differing(left.paths.backup(one.id), one) == [] and one.verified for one in every(left))
        counted.append(len(every(left)))
        if left.paths.history.exists():
            assert [
                line
                for line in problems(left)
                if "was interrupted. Next: fix the cause, then sudo stackctl backup" in line
            ]
        code, shown = stackctl(left, "backup")
        assert code == 0, (at, shown)
        assert (leftovers(left), len(every(left))) == ([], counted[-1] + 1)
        assert problems(left) == []
    assert counted == sorted(counted)
    assert {0, 1} == set(counted)


def test_another_run_s_backup_is_left_alone(live: Droplet) -> None:
    stack, under_way = stack_of(live), live.paths.backup("20251123T110000.000Z")
    with partial.directory(under_way) as place:
        assert stackctl(live, "backup")[0] == 0
        assert place.exists()
    place.mkdir()
    live.docker.throwaway[stack.paths.docker.verification(under_way.name)] = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert leftovers(live) == []


def test_no_backup_is_made_if_the_data_is_on_another_host(tmp_path: Path) -> None:
    code, shown = stackctl(installed(tmp_path, data=None), "backup")
    assert (code, "the database is on another host" in shown) == (2, True)
    assert stackctl(installed(tmp_path / "other", data=None), "amcheck")[0] == 0
