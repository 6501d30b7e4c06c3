"""Backups are damaged or interrupted. The tests check the messages, the verified backups and the leftovers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from stackctl.backup.create import BACKUP
from tests.support import under_way
from tests.support.data import Database, backups, leftovers, problems, proven
from tests.support.environment import Environment
from tests.support.small_disk import fill, small_disk
from tests.support.under_way import DROPLET, UnderWay

pytestmark = pytest.mark.group("data")

KILLED, FAILED, REFUSED, LOCKED = 255, 1, 2, 3  # SSH returns 255 for a program that was killed.
OURS = "/opt/backups"
DAY = 86400
KEPT_DAYS = 7
"""The number of kept days in docs/reference/backups.md."""
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def begun() -> UnderWay:
    return UnderWay(("backup",), program=under_way.BACKUP)


def assert_the_next_one_is_whole(droplet: Host) -> None:
    before = proven(droplet)
    droplet.check_output("stackctl backup")
    assert leftovers(droplet) == ""
    assert problems(droplet) == []
    assert len(set(proven(droplet)) - set(before)) == 1


@pytest.fixture(autouse=True)
def _well_before(droplet: Host) -> None:
    if problems(droplet):
        droplet.check_output("stackctl backup")
    assert problems(droplet) == []


# damage


def truncated(file: Path) -> None:
    with file.open("rb+") as content:
        content.truncate(file.stat().st_size * 2 // 3)


def flipped(file: Path) -> None:
    """Flip one bit in the middle of the file."""
    with file.open("rb+") as content:
        content.seek(file.stat().st_size // 2)
        byte = content.read(1)[0]
        content.seek(-1, 1)
        content.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("name", ["postgres.dump", "globals.sql", "redis.rdb"])
@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_backup_damaged_after_it_was_written_does_not_count(
    droplet: Host, show: Callable[[str], None], damage: Callable[[Path], None], name: str
) -> None:
    before = proven(droplet)
    asked = begun()
    asked.reach("verify")
    (place,) = (DROPLET.root / OURS.removeprefix("/")).glob("*.partial")
    damage(place / name)
    code, output = asked.end()
    show(f"{name} {damage.__name__}: {output.splitlines()[-1]}")
    assert code == FAILED, output
    assert name in output.splitlines()[-1]
    assert proven(droplet) == before
    assert any("the last backup failed" in line for line in problems(droplet))
    assert_the_next_one_is_whole(droplet)


def test_a_full_disk_refuses_a_backup_or_fails_it_with_a_reason(droplet: Host, show: Callable[[str], None]) -> None:
    """The test gives the backups a separate file system with little more space than a backup needs."""
    with small_disk(droplet, 640, OURS):
        droplet.check_output(f"fallocate -l 200m {OURS}/ballast")
        code, output = begun().end()
        assert (code, "make room there" in output.splitlines()[-1]) == (REFUSED, True)
        for step in ("dump", "verify"):
            droplet.check_output(f"rm {OURS}/ballast")
            asked = begun()
            asked.reach(step)
            fill(OURS)
            code, output = asked.end()
            show(f"full at {step}: {output.splitlines()[-1]}")
            full = any(said in output.lower() for said in ("no space left", "mib is left on the disk"))
            assert (code, full) == (FAILED, True), output
            assert (proven(droplet), leftovers(droplet)) == ([], "")
        droplet.check_output(f"rm {OURS}/ballast")
        droplet.check_output("stackctl backup")


@pytest.mark.parametrize("step", [step.name for step in BACKUP])
def test_a_backup_killed_at_any_step_does_not_count_and_the_next_one_is_whole(
    droplet: Host, show: Callable[[str], None], step: str
) -> None:
    before, steps = proven(droplet), [one.name for one in BACKUP]
    asked = begun()
    asked.reach(step)
    asked.kill()
    code, output = asked.end()
    # The run may end before it can be killed in one of its last steps.
    assert code == KILLED or (code == 0 and step in {"upload", "prune"}), output
    reached = steps.index(asked.last_step()) if code else len(steps)
    show(f"to be killed at {step}: {asked.last_step() if code else 'it had ended'}")
    counted = len(set(proven(droplet)) - set(before))
    assert counted == 0 or reached >= steps.index("publish")
    assert counted == 1 or reached <= steps.index("publish")
    assert any("was interrupted" in line for line in problems(droplet)) == bool(code)
    assert_the_next_one_is_whole(droplet)


def test_out_of_memory_it_says_which_value_to_raise(droplet: Host, show: Callable[[str], None]) -> None:
    before, config = proven(droplet), "/etc/toogoodtogo/stackctl.json"
    droplet.check_output(f"cp --archive {config} {config}.before")
    try:
        droplet.check_output(f"""sed -i 's/"backup_memory_mib": [0-9]*/"backup_memory_mib": 24/' {config}""")
        code, output = begun().end()
    finally:
        droplet.check_output(f"mv {config}.before {config}")
    show(output.splitlines()[-1])
    assert (code, "raise backup_memory_mib" in output.splitlines()[-1]) == (FAILED, True)
    assert proven(droplet) == before
    assert_the_next_one_is_whole(droplet)


def test_a_backup_of_half_the_size_fails_but_is_kept(droplet: Host, database: Database) -> None:
    database.ask("CREATE TABLE ballast AS SELECT sha512(n::text::bytea) FROM generate_series(1, 50000) n")
    try:
        droplet.check_output("stackctl backup")
    finally:
        database.ask("DROP TABLE ballast")
    before = proven(droplet)
    code, output = begun().end()
    assert (code, "the new dump has lost more than half of its size" in output.splitlines()[-1]) == (FAILED, True)
    assert set(before) < set(proven(droplet)), "nothing was pruned"
    assert_the_next_one_is_whole(droplet)


# two runs at the same time


def test_the_second_of_two_is_refused_by_name(droplet: Host) -> None:
    first = begun()
    first.reach("dump")
    code, output = begun().end()
    assert (code, "deploy's stackctl backup" in output.splitlines()[-1]) == (LOCKED, True)
    assert first.end()[0] == 0
    assert problems(droplet) == []


def test_a_release_runs_during_the_verification_of_a_backup(droplet: Host) -> None:
    live = json.loads(droplet.check_output("stackctl status --json"))["release"]["tag"]
    first = begun()
    first.reach("verify")
    assert UnderWay(("release", live)).end()[0] == 0
    assert first.end()[0] == 0
    assert (problems(droplet), leftovers(droplet)) == ([], "")


# the clock


@pytest.fixture(scope="module")
def at(droplet: Host) -> Iterator[Callable[[int], CommandResult]]:
    """Return a function that makes a backup with stackctl's clock a number of days ahead.

    libfaketime sets the clock of stackctl only, because child processes do not inherit the setting.
    """
    droplet.check_output("apt-get install --yes --quiet faketime")
    fake = f"LD_PRELOAD={FAKETIME} FAKETIME_DONT_FAKE_MONOTONIC=1"
    yield lambda days: droplet.run(f"env {fake} FAKETIME={days:+}d stackctl backup")
    droplet.check_output("apt-get purge --yes --quiet --autoremove faketime")


@pytest.fixture
def nightly(droplet: Host) -> Iterator[None]:
    """Make the backups of ten nights, as copies of one real backup with other names and dates."""
    before = proven(droplet)
    droplet.check_output("stackctl backup")
    newest = backups(droplet)[-1]
    for night in range(1, 11):
        made = dict(
            newest, id=f"{newest['id'][:8]}T00000{night % 10}.{night:03}Z", sequence=newest["sequence"] - 20 + night
        )
        made["at"] = droplet.check_output(f"date --utc --iso-8601=seconds --date='{11 - night} days ago'")
        place = f"{OURS}/{made['id']}"
        droplet.check_output(f"cp --recursive {OURS}/{newest['id']} {place}")
        _write_manifest(droplet, place, made)
    yield
    for one in set(proven(droplet)) - set(before):
        droplet.check_output(f"rm -r {OURS}/{one}")
    droplet.check_output("stackctl backup")


def _write_manifest(droplet: Host, place: str, made: dict[str, Any]) -> None:
    text = json.dumps({"version": 2, **made})
    droplet.check_output(f"printf %s {shlex.quote(text)} > {place}/manifest.json")


@pytest.mark.usefixtures("nightly")
def test_no_clock_that_is_a_month_wrong_deletes_one_of_the_newest(
    droplet: Host, at: Callable[[int], CommandResult]
) -> None:
    """The storage rejects a droplet with a wrong clock. Once the clock is right, stackctl sends the unsent backups."""

    def newest() -> list[str]:
        return [one["id"] for one in sorted(backups(droplet), key=lambda one: one["sequence"]) if one["verified"]]

    # If the droplet's clock is behind, a young certificate of the storage is not yet valid.
    says = ("the clocks of the droplet and the storage differ. Next: timedatectl", "certificate is not yet valid")
    for days in (31, 31, 0, -31, 0, 0):
        before = newest()
        ran = at(days)
        refused = any(said in ran.stdout for said in says)
        assert (ran.rc, refused) == ((FAILED, True) if days else (0, False)), ran.stdout
        assert set(before[-KEPT_DAYS + 1 :]) < set(newest()), "one of the newest backups is gone, or no backup was made"
        told = [line for line in problems(droplet) if "the last verified backup is from" in line]
        assert bool(told) == (days != 0), "a backup with a wrong date must not count as today's backup"
    assert len(newest()) >= KEPT_DAYS
    assert all(one["offsite"] for one in backups(droplet) if one["verified"])


# backups of damaged data


def test_a_damaged_table_is_found_by_the_weekly_look(lab: Environment, droplet: Host, database: Database) -> None:
    service = lab.settings.paths.units.amcheck_service
    database.ask("CREATE TABLE damaged AS SELECT n, repeat('x', 500) AS text FROM generate_series(1, 1000) n")
    try:
        database.ask("CHECKPOINT", "postgres")
        file = database.ask("SELECT pg_relation_filepath('damaged')")
        droplet.check_output(f"docker stop {database.container}")
        where = f"{lab.settings.values.data_root}/postgres/{file}"
        droplet.check_output(f"printf 'nonsense' | dd of={where} bs=1 seek=20000 conv=notrunc")
        droplet.check_output(f"systemctl restart {lab.settings.paths.units.app}")
        assert droplet.run(f"systemctl start {service}").rc != 0
        (line,) = problems(droplet)
        assert "PostgreSQL's files are damaged" in line
        assert "damaged" in droplet.check_output(f"cat {lab.settings.paths.amcheck_failure}")
    finally:
        database.ask("DROP TABLE damaged")
    droplet.check_output(f"systemctl start {service}")
    assert problems(droplet) == []


def test_failed_saves_of_redis_are_reported(lab: Environment, droplet: Host) -> None:
    directory = f"{lab.settings.values.data_root}/redis"
    droplet.check_output(f"chown root {directory}")
    try:
        lab.ask_redis(droplet, "BGSAVE")
        droplet.check_output("sleep 1")
        (line,) = problems(droplet)
        assert "Redis could not save its data (rdb_last_bgsave_status)" in line
    finally:
        droplet.check_output(f"chown 999 {directory}")
        lab.ask_redis(droplet, "SAVE")
    lab.ask_redis(droplet, "BGSAVE")
    droplet.check_output("sleep 1")
    assert problems(droplet) == []
