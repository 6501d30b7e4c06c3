"""The steps that prepare a new release: save the app environment, dump the database and migrate the database."""

from contextlib import suppress
from dataclasses import replace

from stackctl.app import app_env, schema, state
from stackctl.backup import create
from stackctl.core.errors import StackError
from stackctl.core.steps import Step
from stackctl.release.run import ReleaseRun


def _save_environment(run: ReleaseRun) -> str:
    app_env.save(run.stack.paths.snapshot(run.release.id), run.values)
    return f"{len(run.values)} variables are saved"


def _forget_environment(run: ReleaseRun) -> None:
    run.stack.paths.snapshot(run.release.id).unlink(missing_ok=True)


def _backup(run: ReleaseRun) -> str:
    stack = run.stack
    if not stack.config.data:
        return "the database is on another host, which makes its own backups"
    made = create.of_release(stack, stack.config.data, run.release.id)
    return f"{stack.paths.backup(made.id)}, {made.bytes / 1e6:.1f} MB"


def _migrate(run: ReleaseRun) -> str:
    pending = run.pending
    if not pending:
        return "no migration is pending"
    # Save the names of the pending migrations in state.json before the migrations start. After an interruption, a
    # rollback then knows that the database may have these migrations.
    run.before = replace(run.before, revisions=(*run.before.revisions, *pending))
    state.save(run.stack.paths, run.before)
    schema.migrate(run.stack, run.project, run.compose_environment, run.release)
    run.pending = ()
    return schema.named(pending)


def _record_applied(run: ReleaseRun) -> None:
    """Record which migrations the database has, so that a failed contract migration does not prevent a rollback.

    If the database does not answer, the next release asks the database again.
    """
    run.stack.remove_one_shots()
    if not run.pending:
        return
    with suppress(StackError):
        report = schema.read(run.stack, run.project, run.compose_environment, run.release)
        run.before = replace(run.before, revisions=schema.applied(run.before.revisions, report))
        state.save(run.stack.paths, run.before)


PREPARE = (
    Step("snapshot", "save the app environment of the release", _save_environment, _forget_environment),
    Step("backup", "dump the database", _backup),
    Step("migrate", "run the migrations of the new image", _migrate, _record_applied),
)
