"""A backup on a droplet in memory: it counts when it was restored, and what is left of one that failed is nothing."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import create, manifest, partial, prune, verify
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import access, download, upload
from stackctl.cli import run, timers
from stackctl.core import config, events, lock
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from stackctl.services import postgres
from tests.support.fakes.docker import Docker
from tests.support.fakes.droplet import PARSER, Droplet, change, installed, kills, stackctl
from tests.support.fakes.postgres import Postgres
from tests.support.manifests import made
from tests.support.power import Disk
from tests.support.settings import ROOT


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    droplet.calls.clear()
    return droplet


def every(droplet: Droplet) -> list[Manifest]:
    return manifest.every(droplet.paths.backups)


def proven(droplet: Droplet) -> list[Manifest]:
    return [one for one in every(droplet) if one.verified]


def leftovers(droplet: Droplet) -> list[str]:
    """What no run may leave."""
    return [*(path.name for path in droplet.paths.backups.glob("*.partial")), *droplet.docker.throwaway]


def problems(droplet: Droplet) -> list[str]:
    found: list[str] = json.loads(stackctl(droplet, "status", "--json")[1])["problems"]
    return found


def keep(droplet: Droplet, one: Manifest) -> None:
    """As if it had been made here."""
    directory = droplet.paths.backup(one.id)
    directory.mkdir(parents=True)
    manifest.save(directory, one)


def test_what_has_a_backup_s_name_is_on_the_disk_to_its_last_byte(live: Droplet) -> None:
    """Whenever the power goes: its files before its manifest, and both before its name."""
    backups = live.paths.backups
    disk, looked = Disk(live.paths.var.parents[2]), list[int]()

    def look() -> None:
        for whole in (path for path in backups.iterdir() if manifest.ID.fullmatch(path.name)):
            (told,) = disk.after_a_cut(whole / manifest.NAME)
            assert told, "a manifest that is not on the disk"
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
    """What uid 999 may leave in a directory that it has: links, a FIFO, a tree too deep for shutil.rmtree."""
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
def test_what_a_throwaway_container_leaves_is_removed_and_leads_nowhere(
    live: Droplet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It restored what somebody may have written who owns the app."""
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
def test_what_killed_runs_left_is_removed_and_leads_nowhere(live: Droplet, tmp_path: Path) -> None:
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


def test_a_release_s_own_is_not_restored_and_counts_as_no_proof(live: Droplet) -> None:
    (found,) = every(live)
    assert (found.reason, found.verified, found.redis, found.tables) == ("release", None, None, live.postgres.tables)
    assert not live.ran("docker run")


def test_each_has_a_number_above_all_before_whatever_the_clock_says(live: Droplet) -> None:
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


@contextmanager
def looking(monkeypatch: pytest.MonkeyPatch, droplet: Droplet) -> Iterator[list[list[bool]]]:
    """Who has the site's lock and the backup's, at each proof, each dump and each look at the files."""
    seen: list[list[bool]] = []

    def look() -> None:
        seen.append([bool(lock.holder_of(path)) for path in (droplet.paths.lock, droplet.paths.backup_lock)])

    run = type(droplet).run

    def looked_at(self: Droplet, argv: list[str], *rest: Any, **more: Any) -> Result:
        if {"pg_dump", "pg_restore", "pg_amcheck"} & set(argv) and not {"--list", "--schema-only"} & set(argv):
            look()
        return run(self, argv, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(type(droplet), "run", looked_at)
        yield seen


def test_the_site_is_free_again_while_the_backup_is_proven(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
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


ENDED = Result(1, stderr="it ended")
BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "no room": ({"bytes_free": 300 << 20}, 2, "has 300 MiB left, a backup may need 525: make room there"),
    "no PostgreSQL": ({"failing": {"pg_database_size": ENDED}}, 1, "docker exec psql: it ended"),
    "no snapshot": ({"failing": {"pg_export_snapshot": ENDED}}, 1, "it ended"),
    "no dump": ({"failing": {"pg_dump ": ENDED}}, 1, "docker exec pg_dump: it ended"),
    "a dump that can't be read": ({"failing": {"pg_restore --list": ENDED}}, 1, "can't be read: it ended"),
    "no roles": ({"failing": {"pg_dumpall": ENDED}}, 1, "docker exec pg_dumpall: it ended"),
    "no Redis": ({"failing": {"redis-cli --user stackctl --rdb": ENDED}}, 1, "redis-cli --rdb: it ended"),
    "a broken RDB": ({"failing": {"redis-check-rdb": ENDED}}, 1, "cannot read redis.rdb: it ended"),
    "no throwaway": ({"failing": {"docker run --detach": ENDED}}, 1, "a throwaway postgres does not start: it ended"),
    "a table that lost a row": (
        {"postgres.lost": {"public.offers": 11}},
        1,
        "the restored data differs: public.offers has 11 rows, the snapshot had 12",
    ),
    "a table too many": (
        {"postgres.lost": {"public.x": 0}},
        1,
        "the restored data differs: public.x was not in the dump's snapshot",
    ),
    "a key that was lost": ({"redis.keys_lost": 1}, 1, "redis.rdb has 5 keys, but Redis loaded 4"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_fails_is_named_and_leaves_nothing(live: Droplet, fault: str) -> None:
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


def test_what_was_flipped_though_it_can_be_restored_is_no_backup(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = verify._load_redis

    def flip(stack: Stack, place: Path, *rest: Any) -> None:
        (place / manifest.GLOBALS).write_text("[]")
        load(stack, place, *rest)

    monkeypatch.setattr(verify, "_load_redis", flip)
    code, shown = stackctl(live, "backup")
    assert (code, "damaged since it was written: globals.sql was changed since it was written" in shown) == (1, True)
    assert (proven(live), leftovers(live)) == ([], [])


def large(number: int, **more: Any) -> Manifest:
    return made(number, files={manifest.DUMP: manifest.File(10_000_000, "0" * 64)}, **more)


def small(number: int, **more: Any) -> Manifest:
    """As what is dumped here."""
    return made(number, files={manifest.DUMP: manifest.File(40, "0" * 64)}, **more)


SHRUNK = "the dump has lost more than half of its size: 0.0 MB, but 10.0 MB in {}. Nothing was pruned"


def test_what_lost_half_of_its_size_fails_each_night_until_somebody_asks_for_a_backup(live: Droplet) -> None:
    """Though it is kept; and nothing is pruned."""
    big = large(50, at=live.now() - timedelta(hours=20))
    for one in (*(made(number, live.now() - timedelta(days=60 - number)) for number in range(40, 50)), big):
        keep(live, one)
    for _ in range(2):
        code, shown = stackctl(live, "backup", "--nightly")
        assert (code, SHRUNK.format(big.id) in shown) == (1, True)
        assert "if the loss was intended, run sudo stackctl backup to acknowledge it" in shown
        assert [line for line in problems(live) if "lost more than half" in line]
        live.seconds += 86400
    code, shown = stackctl(live, "backup")
    assert (code, SHRUNK.format(big.id) in shown) == (1, True)
    assert "if the loss was intended, later backups are compared with this one" in shown
    assert [one.sequence for one in proven(live)] == [*range(40, 51), 51, 52, 53]
    live.seconds += 86400
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert len(proven(live)) == prune.KEPT_DAYS


@pytest.mark.parametrize(("percent", "code"), [(49, 1), (51, 0)])
def test_half_is_half(live: Droplet, percent: int, code: int) -> None:
    assert stackctl(live, "backup")[0] == 0
    size = proven(live)[-1].files[manifest.DUMP].bytes
    keep(live, made(40, files={manifest.DUMP: manifest.File(size * 100 // percent, "0" * 64)}))
    ended, shown = stackctl(live, "backup", "--nightly")
    assert (ended, "more than half of its size" in shown) == (code, bool(code)), shown


def test_what_is_compared_with_is_neither_what_a_restore_saved_nor_what_nobody_has_restored(live: Droplet) -> None:
    """And one that grew since it was asked for counts as it is."""
    for one in (large(40), small(41, reason="asked"), large(42, reason="safety"), large(43, verified=False)):
        keep(live, one)
    assert stackctl(live, "backup", "--nightly")[0] == 0
    keep(live, large(45))
    keep(live, small(46))
    code, shown = stackctl(live, "backup", "--nightly")
    assert (code, SHRUNK.format(large(45).id) in shown) == (1, True)


def test_the_nightly_ones_of_seven_days_stay_and_the_newest_of_releases(live: Droplet) -> None:
    for _ in range(4):
        stackctl(live, "release", "1.1.0")
    for _ in range(9):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 0
    reasons = [one.reason for one in every(live)]
    assert reasons == ["release"] * prune.KEPT_OF_RELEASES + ["nightly"] * prune.KEPT_DAYS
    assert leftovers(live) == []


class Sent(list[str]):
    """The ids of what was sent off the droplet."""

    most = 3
    """It takes no more."""


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Sent:
    sent = Sent()

    def send(_stack: Stack, one: Manifest, directory: Path) -> str:
        assert manifest.load(directory) == one
        if len(sent) == sent.most:
            raise FailedError("the storage is down")
        sent.append(one.id)
        return f"snapshot-{len(sent)}"

    monkeypatch.setattr(access, "configured", lambda _stack: True)
    monkeypatch.setattr(upload, "upload", send)
    monkeypatch.setattr(upload, "sent", lambda _stack: {*sent})
    monkeypatch.setattr(download, "available", lambda _stack: [small(70)])
    return sent


def test_what_could_not_be_sent_goes_with_the_next_one(live: Droplet, storage: Sent) -> None:
    for number in range(1, 4):
        keep(live, made(number, live.now() - timedelta(days=20 - number)))
    code, shown = stackctl(live, "backup")
    assert (code, "the storage is down" in shown) == (1, True)
    assert [one.sequence for one in proven(live) if not one.offsite] == [1]
    storage.most = 99
    assert stackctl(live, "backup")[0] == 0
    assert [one.offsite.snapshot for one in proven(live) if one.offsite][-1] == "snapshot-4"
    assert all(one.offsite for one in proven(live))
    assert not any(one.offsite for one in every(live) if one.reason == "release")


def test_what_the_storage_has_lost_goes_again(live: Droplet, storage: Sent) -> None:
    """Or never had: another one was declared."""
    assert stackctl(live, "backup")[0] == 0
    storage.clear()
    assert stackctl(live, "backup")[0] == 0
    assert {*storage} == {one.id for one in proven(live)}


@pytest.mark.parametrize("number", [2**62, 2**63 - 1])
def test_a_number_that_nobody_has_counted_to_leaves_one_for_the_next_backup(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An intruder sent the highest one that a manifest may have, so that there is none after it."""
    monkeypatch.setattr(download, "available", lambda _stack: [replace(small(1), sequence=number)])
    droplet = installed(tmp_path)
    for _ in range(2):
        code, shown = stackctl(droplet, "backup")
        assert code == 0, shown
    assert [one.sequence for one in every(droplet)] == [1, 2]


def test_a_droplet_without_backups_goes_on_from_the_number_of_what_was_sent(tmp_path: Path, storage: Sent) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "backup")[0] == 0
    assert [(one.sequence, one.id) for one in every(droplet)] == [(71, storage[0])]


def test_the_first_of_an_empty_droplet_is_compared_with_what_was_sent(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    droplet = installed(tmp_path)
    newest = large(71)
    larger = made(70, files={manifest.DUMP: manifest.File(20_000_000, "0" * 64)})
    there = [larger, newest, small(72, verified=False), small(73, reason="safety")]
    monkeypatch.setattr(download, "available", lambda _stack: there)
    code, shown = stackctl(droplet, "backup", "--nightly")
    assert (code, SHRUNK.format(newest.id) in shown) == (1, True)
    assert [one.id for one in proven(droplet)] == storage, "it is kept, and sent"


def test_a_release_needs_no_storage_that_answers(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the first backup behind it asks the storage all the same."""
    droplet = installed(tmp_path)
    with monkeypatch.context() as down:
        down.setattr(download, "available", lambda _stack: pytest.fail("asked"))
        assert stackctl(droplet, "release", "1.0.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    assert [(one.sequence, one.reason) for one in every(droplet)] == [(1, "release"), (71, "asked")]


def test_the_first_backup_needs_no_storage_that_answers_and_the_next_one_asks_again(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_stack: Stack) -> None:
        raise FailedError("the storage can't be reached")

    droplet = installed(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(download, "available", down)
        broken.setattr(upload, "sent", down)
        code, shown = stackctl(droplet, "backup")
    assert (code, "the storage can't be reached" in shown.splitlines()[-1]) == (1, True)
    assert [one.sequence for one in proven(droplet)] == [1]
    assert stackctl(droplet, "backup")[0] == 0
    assert [one.sequence for one in proven(droplet)] == [1, 71]
    assert sorted(storage) == sorted(one.id for one in proven(droplet))


def test_what_a_killed_upload_fetched_makes_room(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = live.paths.backups / upload.FETCHED
    (fetched / "20251122T000000.000Z").mkdir(parents=True)
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert fetched.exists(), "a backup may be at it"
    monkeypatch.setattr(type(live), "free", lambda *_: 520 << 20 if fetched.exists() else 20 << 30)
    assert stackctl(live, "backup")[0] == 0
    assert not fetched.exists()


def test_a_safety_one_is_proven_and_prunes_nothing(live: Droplet) -> None:
    older = [made(number, live.now() - timedelta(days=60 - number)) for number in range(10, 20)]
    for one in older:
        keep(live, one)
    stack = stack_of(live)
    found = create.safety(stack)
    assert (found.reason, proven(live)) == ("safety", [*older, found])


def stack_of(droplet: Droplet) -> Stack:
    journal = events.Journal(None, "restore", droplet, StringIO(), (), "20251123T130000.000Z")
    return Stack(droplet.paths, config.load(droplet.paths), droplet, journal)


def test_killed_at_any_moment_nothing_of_it_counts_and_the_next_one_is_whole(tmp_path: Path) -> None:
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


def test_what_another_run_is_making_is_left_alone(live: Droplet) -> None:
    stack, under_way = stack_of(live), live.paths.backup("20251123T110000.000Z")
    with partial.directory(under_way) as place:
        assert stackctl(live, "backup")[0] == 0
        assert place.exists()
    place.mkdir()
    live.docker.throwaway[stack.paths.docker.verification(under_way.name)] = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert leftovers(live) == []


# what is whole, and does not restore in one go

ROW = "a customer's own"


@pytest.fixture
def odd(live: Droplet) -> Droplet:
    """A table whose rows no database takes in one go."""
    live.postgres.unloadable = {"public.offers": True}
    return live


def unproven(droplet: Droplet) -> list[Manifest]:
    return [one for one in every(droplet) if one.unproven]


def test_a_schema_that_does_not_restore_in_one_go_keeps_its_dump_and_says_so(odd: Droplet, storage: Sent) -> None:
    code, shown = stackctl(odd, "backup", "--nightly")
    (kept,) = unproven(odd)
    assert (code, kept.verified, kept.reason, kept.tables) == (1, None, "nightly", odd.postgres.tables), shown
    assert manifest.differing(odd.paths.backup(kept.id), kept) == []
    assert kept.unproven
    assert "COPY failed for table public.offers" in kept.unproven
    assert f"The dump is kept as {kept.id}, unverified" in shown.splitlines()[-1]
    assert storage == [kept.id], "the droplet may be lost before anybody mends the schema"
    assert leftovers(odd) == []
    assert [line for line in problems(odd) if kept.id in line and "unverified" in line and "public.offers" in line]
    row = next(line for line in stackctl(odd, "backups")[1].splitlines() if kept.id in line)
    assert "unverified" in row
    assert f"{kept.id} is unverified: {kept.unproven}" in stackctl(odd, "backups")[1]


def test_it_is_kept_though_it_can_t_be_sent(odd: Droplet, storage: Sent) -> None:
    storage.most = 0
    code, shown = stackctl(odd, "backup")
    assert (code, len(unproven(odd))) == (1, 1)
    assert "COPY failed for table public.offers" in shown.splitlines()[-1]
    assert "and was not sent off the droplet: the storage is down" in shown.splitlines()[-1]


def test_one_for_which_the_memory_is_too_small_is_kept(odd: Droplet) -> None:
    odd.failing = {"oom": ENDED}
    code, shown = stackctl(odd, "backup")
    assert (code, "out of memory while postgres was restored" in shown.splitlines()[-1]) == (1, True)
    (kept,) = unproven(odd)
    assert "raise backup_memory_mib" in (kept.unproven or "")


def test_a_newer_one_takes_its_place_and_no_proven_one_s(live: Droplet) -> None:
    assert stackctl(live, "backup")[0] == 0
    before = proven(live)
    live.postgres.unloadable = {"public.offers": True}
    for _ in range(prune.KEPT_DAYS + 3):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 1
    (kept,) = unproven(live)
    assert (proven(live), kept.sequence) == (before, max(one.sequence for one in every(live)))
    live.postgres.unloadable = {}
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert (unproven(live), len(proven(live))) == ([], 2)
    assert problems(live) == []


def test_what_gave_way_to_a_newer_one_is_numbered_no_more(odd: Droplet, storage: Sent, monkeypatch: Any) -> None:
    """The storage has numbers that this droplet never saw."""
    assert stackctl(odd, "backup")[0] == 1
    monkeypatch.setattr(download, "highest_since", lambda *_: 500)
    storage.clear()
    code, shown = stackctl(odd, "backup")
    (kept,) = unproven(odd)
    assert (code, kept.sequence, "unsent backups get higher ones" in shown) == (1, 501, True), shown


def test_killed_while_it_is_kept_there_is_one_all_the_same(tmp_path: Path) -> None:
    kept = set[int]()
    droplet = installed(tmp_path / "droplet")
    droplet.postgres.unloadable = {"public.offers": True}
    assert stackctl(droplet, "backup")[0] == 1
    for _, left in kills(droplet, "backup"):
        kept.add(len(unproven(left)))
        assert all(manifest.differing(left.paths.backup(one.id), one) == [] for one in every(left))
    assert kept == {1, 2}


def test_what_a_restore_saves_must_be_proven_and_is_kept_all_the_same(odd: Droplet) -> None:
    with pytest.raises(FailedError, match=r"is kept as 20251123T130000\.000Z, unverified"):
        create.safety(stack_of(odd))
    assert [one.reason for one in unproven(odd)] == ["safety"]
    assert stackctl(odd, "backup")[0] == 1
    assert [one.reason for one in unproven(odd)] == ["safety", "asked"], "it may be all that is left of that data"


def test_a_proven_one_is_of_other_data_than_what_a_restore_saved(live: Droplet) -> None:
    """It stays as long as a proven one would have."""
    assert stackctl(live, "backup")[0] == 0
    live.seconds += 60
    live.postgres.unloadable = {"public.offers": True}
    with pytest.raises(FailedError, match="unverified"):
        create.safety(stack_of(live))
    live.postgres.unloadable = {}
    for _ in range(prune.KEPT_DAYS - 1):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 0
        assert [one.reason for one in unproven(live)] == ["safety"]
    live.seconds += 86400
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert unproven(live) == []


@pytest.mark.parametrize("changes", [{"postgres.lost": {"public.offers": 11}}, {"redis.keys_lost": 1}])
def test_one_that_restores_and_is_another_is_none(live: Droplet, changes: dict[str, Any]) -> None:
    change(live, changes)
    before = every(live)
    assert stackctl(live, "backup")[0] == 1
    assert every(live) == before


def test_the_proof_stops_at_the_first_thing_that_does_not_load(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    live.postgres.tables = {"public.a": 1, "public.b": 2, "public.c": 3}
    live.postgres.unloadable = {"public.b": False}
    seen: list[dict[str, int]] = []
    restored = Postgres._restore

    def look(self: Postgres, arguments: list[str], dump: Path | None, databases: dict[str, dict[str, int]]) -> Result:
        ran = restored(self, arguments, dump, databases)
        seen.extend(databases.values())
        return ran

    monkeypatch.setattr(Postgres, "_restore", look)
    assert stackctl(live, "backup")[0] == 1
    assert seen == [{"public.a": 1, "public.b": 0}]


def test_the_throwaway_server_has_locks_for_all_tables(live: Droplet) -> None:
    live.postgres.tables = {f"public.day_{number}": 1 for number in range(2000)}
    assert stackctl(live, "backup")[0] == 0
    (started,) = [call for call in live.ran("docker run --detach") if "postgres" in call]
    assert "--max_locks_per_transaction=2064" in started
    assert len(live.ran("LOCK TABLE ONLY ")) == 2000, "the restored one is counted without locks"
    counted = live.ran("COPY ")
    assert len(counted) == 4000
    assert all("ROLLBACK TO SAVEPOINT a;" in question for _, question in counted), "which lets go of the table"


NO_SPACE = Result(1, stderr="pg_restore: error: could not extend file: No space left on device")


def test_a_full_disk_amid_the_proof_says_where_to_make_room(live: Droplet) -> None:
    live.failing = {"--exit-on-error": NO_SPACE}
    code, shown = stackctl(live, "backup")
    said = f"no space left on the disk (pg_restore of postgres.dump: {NO_SPACE.stderr}). Next: make room in "
    assert (code, f"{said}{live.paths.backups}" in shown.splitlines()[-1]) == (1, True), shown


def test_what_writes_without_end_while_it_is_loaded_is_ended_before_the_disk_is_full(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CHECK constraint's function, say."""

    def written(*_: object) -> Result:
        live.bytes_free = SPARE - 1
        deadline = time.monotonic() + 10
        while live.docker.throwaway and time.monotonic() < deadline:
            time.sleep(0.01)
        return Result(2 if not live.docker.throwaway else 0, stderr="server closed the connection unexpectedly")

    monkeypatch.setattr(Postgres, "_restore", written)
    code, shown = stackctl(live, "backup")
    assert (code, f"no space left but {SPARE >> 20} MiB" in shown.splitlines()[-1]) == (1, True), shown
    assert live.ran("docker kill bot-verify")
    assert leftovers(live) == []


def test_one_that_was_ended_is_not_proven_though_its_faults_are_expected(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is unproven is loaded as far as possible, whatever fails."""
    monkeypatch.setattr(verify, "LOOK_S", 0.001)
    live.bytes_free = SPARE - 1
    with pytest.raises(FailedError, match="no space left but"), verify._leaving_room(stack_of(live), "bot-verify"):
        time.sleep(0.2)
    live.bytes_free = SPARE
    with verify._leaving_room(stack_of(live), "bot-verify"):
        time.sleep(0.2)


def test_a_service_without_a_container_is_named(live: Droplet) -> None:
    postgres = next(c for c in live.docker.containers if c["service"] == "postgres")
    live.docker.containers.remove(postgres)
    with pytest.raises(FailedError, match=r"postgres has no container\. Next: sudo systemctl restart bot\.service"):
        verify._image(stack_of(live), "postgres")


@pytest.mark.parametrize(
    ("state", "said", "patience"),
    [
        ("exited", "the throwaway container ended: FATAL: out of shared memory", 0),
        ("running", "the throwaway container is not ready", verify.READY_TIMEOUT),
    ],
)
def test_a_throwaway_that_does_not_come_up_is_told(live: Droplet, state: str, said: str, patience: int) -> None:
    live.failing = {
        "pg_isready": ENDED,
        "{{.State.Status}} bot-verify": Result(0, state),
        "docker logs --tail 20 bot-verify": Result(0, "FATAL: out of shared memory"),
    }
    began = live.seconds
    code, shown = stackctl(live, "backup")
    assert (code, said in shown.splitlines()[-1]) == (1, True), shown
    assert live.seconds - began >= patience
    live.failing = {}
    assert (leftovers(live), unproven(live)) == ([], [])


# status and backups


def test_status_tells_of_a_backup_that_is_overdue(live: Droplet) -> None:
    assert problems(live) == []  # none is due yet
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
    live.seconds -= 60 * 3600  # the clock was ahead when it was made
    assert problems(live) == [line]


def age(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_status_tells_of_saves_that_fail(live: Droplet) -> None:
    live.redis.info |= {"rdb_last_bgsave_status": "err", "aof_last_write_status": "ok"}
    assert problems(live) == [
        "Redis could not save (rdb_last_bgsave_status): make room on the disk, and see stackctl logs redis",
    ]
    live.redis.info = {"-NOAUTH Authentication required.": ""}
    (line,) = problems(live)
    assert line.startswith("Redis can't be asked how its saves go")


def test_status_tells_of_files_that_are_not_whole_until_they_are(live: Droplet) -> None:
    live.failing["pg_amcheck"] = Result(2, "heap table app.public.offers, block 0: xmin is in the future\n")
    code, shown = stackctl(live, "amcheck")
    assert (code, "xmin is in the future" in shown) == (4, True)
    (line,) = problems(live)
    assert "PostgreSQL's files were not found whole: sudo cat" in line
    assert "xmin is in the future" in live.paths.amcheck_failure.read_text()
    live.failing["pg_amcheck"] = Result(1, stderr="Error response from daemon: container x is not running\n")
    code, shown = stackctl(live, "amcheck")
    assert (code, "pg_amcheck could not look: Error response from daemon" in shown) == (1, True)
    assert problems(live) == [line], "it was found so before"
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
    """A migration would wait for the table that is looked at, and give up."""
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
    return [line for line in problems(droplet) if line.startswith("no look at PostgreSQL's files")]


@pytest.mark.parametrize("cause", ["it fails", "another is at work"])
def test_looks_that_never_come_to_their_end_are_told(live: Droplet, cause: str) -> None:
    assert missed(live) == [], "a droplet on which none is due yet"
    live.seconds += 30 * 86400
    if cause == "it fails":
        live.failing["pg_amcheck"] = Result(1, stderr="FATAL: the database system is shutting down\n")
        assert stackctl(live, "amcheck")[0] == 1
    else:
        with (
            lock.exclusive(live.paths.backup_lock, "ada's stackctl backup", 0),
            pytest.MonkeyPatch.context() as patched,
        ):
            patched.setattr(timers, "AMCHECK_PATIENCE", 0)
            assert stackctl(live, "amcheck")[0] == 3
    assert missed(live) == []
    live.seconds += 15 * 86400 + 60
    (line,) = missed(live)
    assert "since 2025-12-23: sudo journalctl -u bot-amcheck.service, then sudo systemctl start" in line
    live.failing["pg_amcheck"] = Result(2, "heap table app.public.offers, block 0: xmin is in the future\n")
    stackctl(live, "amcheck")
    assert missed(live) == [], "what it found is told, and it has looked"
    live.seconds += 16 * 86400
    assert missed(live)
    live.paths.config.write_text(json.dumps(json.loads(live.paths.config.read_text()) | {"isolated": True}))
    assert missed(live) == [], "the timers of a copy rest"


def test_backups_are_listed_newest_first(live: Droplet) -> None:
    stackctl(live, "backup")
    (live.paths.backups / "20250101T000000.000Z").mkdir()
    _, shown = stackctl(live, "backups")
    header, newest, oldest, unreadable = shown.splitlines()
    assert header.split() == ["id", "reason", "MB", "rows", "verified", "off-site", "release"]
    assert newest.split()[1:4] == ["asked", "0.0", "15"]
    assert "in 0." in newest
    assert newest.endswith("no        1.0.0")
    assert oldest.split()[1:] == ["release", "0.0", "15", "no", "no", "none"]
    assert unreadable.endswith(
        "20250101T000000.000Z/manifest.json is missing. Next: sudo stackctl backup, then remove this one"
    )
    (first, second) = json.loads(stackctl(live, "backups", "--json")[1])
    assert (first["reason"], second["tables"]) == ("release", live.postgres.tables)


def test_without_any_it_says_how_to_make_one(tmp_path: Path) -> None:
    assert "there is no backup yet. Next: sudo stackctl backup" in stackctl(installed(tmp_path), "backups")[1]


def test_where_the_data_is_elsewhere_none_is_made(tmp_path: Path) -> None:
    code, shown = stackctl(installed(tmp_path, data=None), "backup")
    assert (code, "the database is on another host" in shown) == (2, True)
    assert stackctl(installed(tmp_path / "other", data=None), "amcheck")[0] == 0


def test_a_throwaway_is_small_alone_and_gone(live: Droplet) -> None:
    stackctl(live, "backup")
    limits = {"--network=none", "--memory=128m", "--memory-swap=128m", "--read-only", "--cap-drop=ALL"}
    started = live.ran("docker run")
    assert len(started) == 3
    assert all(limits <= set(call) for call in started)
    assert not list(live.paths.backups.glob(f"*/{verify.WORK}"))


def test_the_numbers_of_what_stays_are_those_of_the_docs() -> None:
    assert (prune.KEPT_DAYS, prune.KEPT_OF_RELEASES) == (7, 3)
    text = (ROOT / "docs/reference/backups.md").read_text().replace("\n", " ")
    assert "The newest backup of each of 7 days stays, and at least the newest 7 backups." in text
    assert "The last 3 dumps made by releases stay." in text
    assert "keeps the backups of 7 days on the droplet" in text
