"""A restore chooses the right backup, locally or in the off-site storage, and can load it into a new database."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite import download
from stackctl.backup.stored import Snapshot, Stored
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from tests.support.fakes.droplet import CONFIG, Droplet, installed, stackctl
from tests.support.planted import PLANTED, SECRET
from tests.support.restores import THEN, as_it_was, assert_restored, flipped, newest, restored, truncated


@pytest.mark.parametrize("name", ["lost", "a_2nd_1", "a" * 53])
def test_beside_the_live_data_it_changes_nothing_of_it(saved: Droplet, name: str) -> None:
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", "latest", "--to-database", name)
    assert (code, saved.postgres.beside.pop(name)) == (0, THEN), shown
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
    assert (code, "the database lost already exists" in shown, saved.postgres.beside["lost"]) == (
        2,
        True,
        {"public.mine": 1},
    )


def in_storage(told: Manifest) -> Stored:
    return Stored(Snapshot("a" * 64, told.at, told.id, f"/opt/backups/{told.id}"), told, told.time)


@pytest.fixture
def elsewhere(saved: Droplet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move all backups from the droplet to the fake off-site storage, and return its directory."""
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


def test_a_new_droplet_must_be_isolated_before_it_restores_data_from_elsewhere(
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
    assert stackctl(saved, "restore", "latest", "--yes", wanted)[0] == 2, "the backup must be missing on the droplet"
    _, shown = stackctl(saved, "restore", "latest", "--from-offsite")
    assert f"sudo stackctl restore {wanted} --from-offsite --yes {wanted}" in shown
    code, shown = stackctl(saved, "restore", "latest", "--from-offsite", "--yes", wanted)
    assert code == 0, shown
    assert_restored(saved)
    assert newest(saved) == wanted, "the fetched backup must be on the droplet"


@pytest.mark.parametrize("name", [manifest.DUMP, manifest.GLOBALS, manifest.STATE, manifest.RDB, "more"])
@PLANTED
def test_a_link_or_fifo_in_a_backup_is_not_restored(
    saved: Droplet, tmp_path: Path, name: str, *, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """A restore refuses a link or FIFO.

    In attack S8, a restore that held both locks hung on a FIFO. Another restore followed a link and copied a secret, so
    that uid 999 could read the secret.
    """
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
def test_a_malformed_state_in_a_backup_is_reported_in_one_line(saved: Droplet, text: str) -> None:
    """A malformed state is refused even if the manifest matches, because an intruder can write state and manifest."""
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
def test_a_link_in_redis_s_directory_does_not_mislead_a_restore(
    saved: Droplet, tmp_path: Path, *, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """Try attack S2 against a whole restore: a link in Redis's directory must not be followed."""
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    outside.chmod(0o600)
    plant(saved.paths.var / "data/redis/dump.rdb.new", outside)
    code, shown = restored(saved)
    assert code == 0, shown
    assert_restored(saved)
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (SECRET, 0o600)


@pytest.mark.parametrize("damaged", [truncated, flipped])
def test_a_damaged_backup_is_fetched_again(saved: Droplet, elsewhere: Path, damaged: Any) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    shutil.copytree(elsewhere / wanted, saved.paths.backup(wanted))
    damaged(saved)
    assert stackctl(saved, "restore", wanted, "--yes", wanted)[0] == 2
    code, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--yes", wanted)
    assert code == 0, shown
    assert manifest.differing(saved.paths.backup(wanted), manifest.load(saved.paths.backup(wanted))) == []


def test_an_intact_local_backup_is_used_whatever_is_off_site(saved: Droplet, elsewhere: Path) -> None:
    """An intact local backup is preferred, because an intruder can send another backup under the same ID."""
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


def test_a_fetched_backup_is_verified_before_anything_live_changes(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    saved.calls.clear()
    assert stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")[0] == 0
    asked = [" ".join(call) for call in saved.calls]
    proven = next(number for number, line in enumerate(asked) if "--dbname=proof" in line and "pg_restore" in line)
    assert proven < next(number for number, line in enumerate(asked) if "CREATE DATABASE" in line and "lost" in line)


@pytest.mark.parametrize("here", [False, True])
def test_a_fetched_backup_that_does_not_restore_is_not_used(saved: Droplet, elsewhere: Path, here: bool) -> None:  # noqa: FBT001
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
        assert (code, "public.offers has 11 rows, but the manifest says 12" in shown) == (1, True), shown
        assert not [line for line in shown.splitlines() if re.match(" *[0-9.]+ s +load ", line)]
    assert as_it_was(saved) == before
    assert (kept.read_bytes() if kept.exists() else None) == there


@pytest.mark.parametrize("arrives", ["damaged", "unproven"])
def test_a_damaged_local_backup_stays_until_the_fetch_succeeds(saved: Droplet, elsewhere: Path, arrives: str) -> None:
    """A damaged local backup stays until a good copy is fetched, because the damaged copy may be the only one."""
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


def test_a_fetch_needs_disk_space_for_the_verification(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    saved.bytes_free = 300 << 20
    code, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")
    assert (code, "make room there" in shown.splitlines()[-1]) == (2, True), shown
    assert not list(saved.paths.backups.iterdir())


def test_the_next_command_repeats_all_options(saved: Droplet, elsewhere: Path) -> None:
    wanted = manifest.every(elsewhere)[-1].id
    _, shown = stackctl(saved, "restore", "latest", "--from-offsite")
    assert f"(or make restore with ID={wanted} OFFSITE=yes YES={wanted})" in shown.splitlines()[-1]
    saved.failing = {"CREATE DATABASE": Result(1, stderr="no space left")}
    _, shown = stackctl(saved, "restore", wanted, "--from-offsite", "--to-database", "lost")
    assert f"sudo stackctl restore {wanted} --from-offsite --to-database lost" in shown.splitlines()[-1]


def test_a_plan_without_a_release_names_no_service(tmp_path: Path) -> None:
    droplet = installed(tmp_path, isolated=True)
    stackctl(droplet, "backup")
    code, shown = restored(droplet)
    assert code == 0
    for said in ("keeps running until", "clients reach the app again", "maintenance on before", "is still live"):
        assert said not in shown
    assert "clients get 503, because this droplet is isolated" in shown


def test_a_backup_that_arrives_damaged_is_not_used(saved: Droplet, elsewhere: Path) -> None:
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
