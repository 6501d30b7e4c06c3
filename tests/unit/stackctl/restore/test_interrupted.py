"""A restore that is killed at any moment can be finished or undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stackctl.backup import manifest
from stackctl.core.program import Result
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import kills
from tests.support.restores import (
    NOW,
    THEN,
    as_it_was,
    assert_restored,
    backups,
    interrupted,
    newest,
    restored,
    running,
    truncated,
)


def test_a_restore_killed_at_any_moment_is_finished_by_the_same_command(tmp_path: Path) -> None:
    """stackctl is killed at each call and event in turn. The kill leaves real files."""
    live = list[bool]()
    droplet = installed(tmp_path / "droplet")
    stackctl(droplet, "release", "1.2.0")
    stackctl(droplet, "backup")
    droplet.postgres.tables, droplet.redis.info["keys"] = dict(NOW), "9"
    wanted = newest(droplet)
    for at, left in kills(droplet, "restore", wanted, "--yes", wanted):
        live.append(left.postgres.tables == NOW)
        assert left.postgres.tables in (NOW, THEN), "the live tables are a mix of two databases"
        if at % 2:  # every second time, the machine is reset between the kill and the next attempt
            left.reset()
            assert stackctl(left, "boot")[0] == 0
        if not left.paths.maintenance.exists():
            assert "web" in running(left)
        code, shown = stackctl(left, "restore", wanted, "--yes", wanted)
        assert code == 0, (at, shown)
        assert_restored(left)
    assert live == sorted(live, reverse=True)
    assert set(live) == {True, False}


@pytest.mark.parametrize(("beside", "name"), [((), "app"), (("--to-database", "lost"), "lost")])
def test_the_next_backup_removes_leftovers_of_a_restore_killed_early(
    saved: Droplet, beside: tuple[str, ...], name: str
) -> None:
    stackctl(saved, "restore", "latest", "--to-database", "mine")
    left = interrupted(saved, "count", *beside)
    assert left.postgres.beside.keys() == {"mine", f"{name}_restoring"}
    assert stackctl(left, "release", "1.2.0")[0] == 0
    assert f"{name}_restoring" in left.postgres.beside, "a database that a restore may be loading was dropped"
    code, shown = stackctl(left, "backup")
    assert (code, {*left.postgres.beside}, left.postgres.tables) == (0, {"mine"}, NOW), shown


def test_a_killed_restore_keeps_the_bot_closed_until_it_is_finished(saved: Droplet) -> None:
    left = interrupted(saved)
    id_ = newest(saved)
    said = f"the restore of {id_} was interrupted. Next: sudo stackctl restore {id_}, which finishes the restore"
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
    assert (code, "is undone first" in shown) == (0, True), shown
    assert as_it_was(left) == before


def test_an_interrupted_restore_that_can_t_be_finished_is_undone(saved: Droplet) -> None:
    before = as_it_was(saved)
    left = interrupted(saved)
    truncated(left)
    code, shown = restored(left)
    assert (code, "postgres.dump has" in shown.splitlines()[-1]) == (2, True), shown
    assert as_it_was(left) == before


def test_a_restore_that_only_renames_needs_no_disk_space(saved: Droplet) -> None:
    left = interrupted(saved)
    left.bytes_free = 100 << 20
    code, shown = restored(left)
    assert code == 0, shown
    left.bytes_free = 20 << 30  # a full disk is a problem of its own
    assert_restored(left)


def test_if_an_interrupted_restore_cannot_be_undone_no_other_restore_starts(saved: Droplet) -> None:
    left = interrupted(saved, "rdb")  # in this step, the databases have already been swapped
    former = backups(left, "safety")[-1].id
    left.failing = {'RENAME TO "app_restoring"': Result(1, stderr="no answer")}
    code, shown = stackctl(left, "restore", former, "--yes", former)
    said = f"the restore of {newest(left)} could not be undone completely. Not undone: "
    assert (code, said in shown.splitlines()[-1]) == (4, True), shown
    assert f"sudo stackctl restore {newest(left)}" in shown.splitlines()[-1]
    left.failing = {}
    assert restored(left)[0] == 0
    assert_restored(left)
