"""The steps that load the backup into a new database beside the live database."""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from stackctl.app import app_env, schema, state
from stackctl.app.state import Release, Revision
from stackctl.backup import create, manifest, verify
from stackctl.backup.roles import end_loader
from stackctl.core import openat
from stackctl.core.errors import FailedError, RefusedError
from stackctl.restore.run import DONE_BEFORE, SHOWN, RestoreRun, too_new
from stackctl.services.postgres import ADMIN

MOST_REVISIONS = 10_000
"""A backup may bring at most this many revisions. The restore writes them to state.json, which each verb reads."""


def fetch(run: RestoreRun) -> str:
    """Make sure that this droplet has all files of the backup, undamaged."""
    if run.placed:
        return DONE_BEFORE
    faults = manifest.differing(run.directory, run.manifest)
    if not faults:
        message = "the files are already on this droplet, undamaged"
    elif run.asked.from_offsite:
        create.fetch(run.stack, run.manifest)
        message = f"fetched {run.manifest.bytes / 1e6:.1f} MB"
    else:
        raise RefusedError(
            f"{run.manifest.id} is damaged: {', '.join(faults)}",
            next_step="restore another backup, or add --from-offsite (make restore OFFSITE=yes)",
        )
    run.revisions = _revisions(run.directory)
    return message


def _revisions(directory: Path) -> tuple[Revision, ...]:
    """Read the revisions of the backup's schema from its state.json."""
    with openat.directory(directory.parent, directory.name) as there:
        text = there.read(manifest.STATE, manifest.LONGEST)
    try:
        found = state.State.from_json(text).revisions
        if odd := next((one for one in found if not re.fullmatch(manifest.REVISION, one.revision, re.ASCII)), None):
            raise ValueError(f"{str(odd.revision)[:80]!a} is not a revision")
        if len(found) > MOST_REVISIONS or not {one.kind for one in found} <= {"expand", "contract"}:
            raise ValueError("the revisions are invalid")
        return found
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FailedError(
            f"cannot read {directory / manifest.STATE}: {error!r}", next_step="restore another backup"
        ) from None


def load(run: RestoreRun) -> str:
    """Load the dump into the new database."""
    if run.ready:
        return DONE_BEFORE
    dump = run.load
    run.server.drop(run.restored)
    contents = dump.contents()
    try:
        if run.manifest.unproven:
            run.left_out = [*contents.told, *dump.as_far_as_possible(contents)]
        else:
            dump.strictly(contents)
            run.left_out = contents.told
        dump.as_live(run.data.database)
    finally:
        end_loader(run.server)
    return f"loaded {run.manifest.rows} rows"


def drop(run: RestoreRun) -> None:
    """Drop the new database and its loader role."""
    run.server.drop(run.restored)
    end_loader(run.server)


def count(run: RestoreRun) -> str:
    """Compare the row counts of the new database with the manifest."""
    if run.ready:
        return DONE_BEFORE
    try:
        verify.compare(run.server.rows(run.restored), run.manifest.tables)
    except FailedError as error:
        if not run.manifest.unproven:
            raise
        if not run.asked.to_database:
            raise FailedError(
                error.message, next_step="add --to-database NAME to load what can be restored into a new database"
            ) from error
        run.left_out = [*run.left_out, str(error)]
    return f"{len(run.manifest.tables)} tables match the backup"


def name(run: RestoreRun) -> str:
    """Rename the new database to the name that the operator chose."""
    run.server.rename((run.restored, run.target))
    tell_left_out(run)
    return run.target


def tell_left_out(run: RestoreRun) -> None:
    """Emit the differences between the restored database and the backup."""
    for line in run.left_out[:SHOWN]:
        run.stack.log.emit("load", "progress", f"differs from the backup: {line}")
    if len(run.left_out) > SHOWN:
        run.stack.log.emit("load", "progress", f"{len(run.left_out) - SHOWN} more differences from the backup")


def migrate(run: RestoreRun) -> str:
    """If the new database has an older schema, use the live release to migrate the new database.

    Then mark the database as ready.
    """
    current = state.load(run.stack.paths)
    if run.ready:
        return DONE_BEFORE
    if not run.stack.config.migrate:
        message = "the image has no migrations"
    elif not current.release or not current.active:
        message = "no release is live; the first release migrates the database"
    else:
        message = _migrate_with(run, current.release, current.active)
    run.server.query(ADMIN, f"COMMENT ON DATABASE \"{run.restored}\" IS '{run.mark}'")
    return message


def _migrate_with(run: RestoreRun, live: Release, colour: str) -> str:
    stack = run.stack
    values = app_env.load(stack.paths.snapshot(live.id))
    url = urlsplit(values["DATABASE_URL"])._replace(path=f"/{run.restored}")
    env = stack.web_environment(colour, live, {**values, "DATABASE_URL": urlunsplit(url)})
    stack.remove_one_shots()
    project = stack.paths.docker.project(colour)
    report = schema.read(stack, project, env, live)
    revisions = state.load(stack.paths).revisions
    ahead = not report.pending and report.current != report.head
    if ahead and report.current not in {None, revisions[-1].revision if revisions else None}:
        raise too_new(run, report.current)
    if not report.pending:
        return "the data needs no migration"
    schema.migrate(stack, project, env, live)
    run.revisions = (*run.revisions, *report.pending)
    return schema.named(report.pending)


def remove_one_shots(run: RestoreRun) -> None:
    """Remove the containers of migrations."""
    run.stack.remove_one_shots()
