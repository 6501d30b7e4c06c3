"""The verb `rollback` makes an earlier release live again, with the image and the app environment of that release.

A rollback runs no migrations, and has no watch, because there would be no release to return to. If a rollback is killed
after its flip, the same command finishes the rollback.
"""

from stackctl.app import app_env, lifecycle, schema, state
from stackctl.app.stack import Stack
from stackctl.app.state import Release, State
from stackctl.core.errors import RefusedError
from stackctl.core.paths import COLOURS, other
from stackctl.core.steps import Step
from stackctl.release import preflight
from stackctl.release.plan import PREFLIGHT
from stackctl.release.run import ReleaseRun, recover_and_run
from stackctl.release.serve import SERVE
from stackctl.release.tidy import TIDY_ROLLBACK


def rollback(stack: Stack, tag: str | None) -> None:
    """Make the target release live. If a rollback to that release was interrupted after its flip, finish the rollback.

    Raises the same errors as `run_or_undo`.
    """
    before = state.load(stack.paths)
    chosen = target(before, tag)
    if not stack.docker.image(chosen.image):
        raise RefusedError(
            f"the image of {chosen.tag} ({chosen.id}) is gone. Nothing was changed",
            next_step=f"stackctl release {chosen.tag}",
        )
    if stack.config.migrate and (reason := schema.incompatibility(before.revisions, chosen)):
        raise RefusedError(
            f"{chosen.tag} cannot work with the database: {reason}. Nothing was changed",
            next_step="release a version that works with the database",
        )
    recovers = before.uncommitted and lifecycle.needs_recovery(stack)
    live = before.kept[0] if recovers else before.release
    run = ReleaseRun(stack, chosen, recovers=recovers)
    recover_and_run(run, RESUME if live and live.id == chosen.id else ROLLBACK)


def target(before: State, tag: str | None) -> Release:
    """Return the newest kept release with this tag.

    Without a tag, return the release before the live release. If a rollback was killed after its flip, return the
    target of that rollback. Raises RefusedError if there is no target.
    """
    found = next((known for known in before.kept if known.tag == tag), None) if tag else before.back
    if found:
        return found
    names = ", ".join(dict.fromkeys(known.tag for known in before.earlier))
    if names and not tag:
        raise RefusedError(
            f"each earlier release ({names}) was already replaced by a rollback. Nothing was changed",
            next_step=f"stackctl rollback {before.earlier[0].tag}, if you want that release",
        )
    what = f"no release with the tag {tag} is kept" if tag else "there is no earlier release to go back to"
    raise RefusedError(f"{what} (kept: {names or 'none'}). Nothing was changed", next_step="stackctl release TAG")


def _preflight(run: ReleaseRun) -> str:
    """Check that a rollback can start. A rollback needs almost no disk space."""
    stack, paths = run.stack, run.stack.paths
    run.values = app_env.load(paths.snapshot(run.release.id))
    run.before = state.load(paths)
    try:
        state.save(paths, run.before)
    except OSError as error:
        # Save the unchanged state as a test of the disk. If the full disk were noticed only by the step `record`, the
        # undo would remove the kept colour.
        raise RefusedError(str(error), next_step=f"make room on the disk (df -h), then {run.remedy}") from None
    run.colour = other(run.before.active) if run.before.active else COLOURS[0]
    preflight.check(stack, run.values)
    return f"{run.release.tag}, last made live at {run.release.since}, will start in {run.colour}"


def _preflight_of_resuming(run: ReleaseRun) -> str:
    run.values = app_env.load(run.stack.paths.snapshot(run.release.id))
    run.before = state.load(run.stack.paths)
    run.colour = run.before.active or COLOURS[0]
    return f"{run.release.tag} is already live in {run.colour}"


ROLLBACK = (Step("preflight", PREFLIGHT.description, _preflight), *SERVE, *TIDY_ROLLBACK)
RESUME = (Step("preflight", "continue an interrupted rollback", _preflight_of_resuming), *TIDY_ROLLBACK)
