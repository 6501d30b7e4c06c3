"""A restore loads a dump with an older or newer schema, even if a constraint rejects rows of the dump."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.backup import manifest, verify
from stackctl.backup.manifest import Manifest
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.restores import NOW, THEN, as_it_was, backups, newest, restored


def test_an_app_without_migrations_is_restored_as_it_is(tmp_path: Path) -> None:
    droplet = installed(tmp_path, migrate=False)
    assert stackctl(droplet, "release", "1.2.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    droplet.postgres.tables = dict(NOW)
    code, shown = restored(droplet)
    assert (code, droplet.postgres.tables) == (0, THEN), shown
    assert not droplet.ran("schema --json")


def test_a_newer_schema_is_refused_by_the_records_before_anybody_is_asked(tmp_path: Path) -> None:
    """After a rollback, the recorded revisions show that the backup's schema is too new. Nobody is asked."""
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
    said = r"the schema 0002 of \S+ is newer than the schema of the live release \(1\.0\.0 knows 0001\)"
    assert (code, re.search(said, shown) is not None) == (2, True), shown
    assert not droplet.ran("schema --json")


def unprovable(droplet: Droplet, *, by_a_check: bool) -> str:
    """Make a backup of a table whose constraint rejects its own rows during a restore, and return the backup's ID."""
    droplet.postgres.tables = dict(THEN)
    droplet.postgres.unloadable = {"public.offers": by_a_check}
    assert stackctl(droplet, "backup")[0] == 1
    droplet.postgres.tables = dict(NOW)
    return next(one.id for one in reversed(backups(droplet)) if one.unproven)


def test_latest_is_never_an_unverified_backup(saved: Droplet) -> None:
    wanted = newest(saved)
    unproven = unprovable(saved, by_a_check=True)
    assert unproven > wanted
    _, shown = stackctl(saved, "restore", "latest")
    assert f"--yes {wanted}" in shown


def test_an_unverified_backup_is_restored_by_its_id_without_its_checks(saved: Droplet) -> None:
    wanted = unprovable(saved, by_a_check=True)
    code, shown = stackctl(saved, "restore", wanted)
    assert "the backup is unverified, because the whole dump does not load: " in shown
    saved.postgres.unloadable = {"public.offers": True}
    code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, "--no-safety")
    assert (code, saved.postgres.tables) == (0, THEN), shown
    sections = [part for call in saved.ran("--section=") for part in call if part.startswith("--section=")]
    assert sections == ["--section=pre-data", "--section=data", "--section=post-data"]
    asked = [call[-1] for call in saved.ran("--username=stackctl_restore")]
    dropped = asked.index("DROP public.offers")
    assert dropped < asked.index("SET search_path = public; ADD public.offers")
    assert asked[-1] == "ANALYZE"


def test_a_backup_that_loses_rows_is_restored_only_beside(saved: Droplet) -> None:
    wanted = unprovable(saved, by_a_check=False)
    before = as_it_was(saved)
    code, shown = stackctl(saved, "restore", wanted, "--yes", wanted, "--no-safety")
    assert (
        code,
        "public.offers has 0 rows, but the manifest says 12. Next: add --to-database NAME to load" in shown,
    ) == (
        1,
        True,
    ), shown
    assert as_it_was(saved) == before
    code, shown = stackctl(saved, "restore", wanted, "--to-database", "lost")
    assert (code, saved.postgres.beside["lost"]) == (0, {"public.offers": 0, "public.users": 3}), shown
    for line in ("COPY failed for table public.offers", "public.offers has 0 rows, but the manifest says 12"):
        assert re.search(f"differs from the backup: .*{line}", shown), shown
    assert "a row" not in shown


def test_if_the_pre_restore_backup_is_unverified_nothing_is_replaced(saved: Droplet) -> None:
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


def test_a_restore_reports_differences_before_and_at_the_end(saved: Droplet) -> None:
    saved.postgres.dumped_schema = "ALTER TABLE public.offers OWNER TO ada;\n"
    said = "objects of ada (1) will belong to owner"
    _, shown = stackctl(saved, "restore", "latest")
    assert f"plan       progress {said}" in shown
    _, shown = restored(saved)
    assert f"differs from the backup: {said}" in shown


def test_nothing_of_a_dump_is_run_by_the_superuser(saved: Droplet) -> None:
    """The superuser runs no content of a dump, in the live or the throwaway server. The loader role is removed."""
    saved.calls.clear()
    assert restored(saved)[0] == 0
    for call in saved.ran("pg_restore"):
        into_one = any(part.startswith("--dbname=") for part in call)
        assert ("--username=stackctl_restore" in call) == into_one
    assert not saved.ran("ON_ERROR_STOP=1 --dbname=postgres --username=postgres")
    assert [call[-1] for call in saved.ran("ANALYZE")] == ["ANALYZE"] * 2
    assert all("--username=stackctl_restore" in call for call in saved.ran("ANALYZE"))


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
        # On another droplet, the live release is older and the later revisions are not recorded.
        current = state.load(droplet.paths)
        assert current.release
        older = replace(current.release, tag="1.2.0", schema="0002", image=current.kept[1].image)
        colour = current.active or ""
        known = replace(current.with_colour(colour, older), revisions=current.revisions[:2], kept=(older,))
        state.save(droplet.paths, known)
        droplet.postgres.schema = "0002"
    before = as_it_was(droplet)
    code, shown = stackctl(droplet, "restore", wanted, "--yes", wanted)
    said = r"the schema 0003 of \S+ is newer than the schema of the live release \(1\.2\.0 knows 0002\)"
    assert (code, re.search(said, shown) is not None) == (2, True), shown
    assert "Next: sudo stackctl release 1.3.0, or restore with --to-database NAME" in shown
    assert as_it_was(droplet) == before
    assert stackctl(droplet, "restore", wanted, "--to-database", "beside")[0] == 0
    # After a rollback, the live data and its backups have a newer schema than the release.
    state.save(droplet.paths, replace(known, revisions=current.revisions))
    droplet.postgres.schema = "0003"
    assert stackctl(droplet, "restore", wanted, "--yes", wanted)[0] == 0
