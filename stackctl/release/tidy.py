"""The steps after the flip.

The steps concern the worker, state.json, the former colour, old releases and the webhook.
"""

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from stackctl.app import app_env, images, state, webhook
from stackctl.app.stack import DRAIN_SECONDS
from stackctl.app.state import State
from stackctl.core.events import trim
from stackctl.core.paths import other
from stackctl.core.steps import Step
from stackctl.release.run import ReleaseRun
from stackctl.release.serve import flip_back
from stackctl.services import compose
from stackctl.services.postgres import Postgres

KEPT_RELEASES = 3


def _hand_over(run: ReleaseRun) -> str:
    stack = run.stack
    stack.stop_worker()
    if not stack.config.works:
        stack.docker.remove(stack.worker)
        return "no worker runs, because this droplet is isolated" if stack.config.isolated else "the app has no worker"
    stack.bring_up_worker(run.release, compose.up(stack.paths.docker.worker_project, stack.paths.worker_yaml))
    stack.wait_until_well(stack.paths.docker.worker_project, "worker", stack.config.healthy_timeout, fail_early=True)
    return ""


def _hand_back(run: ReleaseRun) -> None:
    stack, former = run.stack, run.before.worker
    flip_back(run)  # flip back first, because stop_worker may wait long for a job
    stack.stop_worker()
    stack.docker.remove(stack.worker)
    if former and stack.config.works:
        stack.bring_up_worker(former, compose.up(stack.paths.docker.worker_project, stack.paths.worker_yaml))


def _record(run: ReleaseRun) -> str:
    _save(run, _with_release(run))
    return ""


def _record_rollback(run: ReleaseRun) -> str:
    """Record the release, and mark the replaced release.

    A later rollback uses a marked release only if its tag is given.
    """
    current = _with_release(run)
    # `kept` begins with the release that was recorded last. A release killed before the step `record` is not in `kept`.
    left = run.before.kept[0].id if run.before.kept and run.before.kept[0].id != run.release.id else None
    if left and left not in current.left:
        current = replace(current, left=(*current.left, left))
    _save(run, current)
    return ""


def _with_release(run: ReleaseRun) -> State:
    run.release = replace(run.release, since=run.stack.machine.now().isoformat(timespec="seconds"))
    return run.before.serving(run.colour, run.release, KEPT_RELEASES)


def _save(run: ReleaseRun, current: State) -> None:
    state.save(run.stack.paths, replace(current, worker=run.release if run.stack.config.works else None))


def _drain(run: ReleaseRun) -> str:
    if not run.before.active:
        return "no release was live before"
    since = run.stack.machine.monotonic() - run.flip.monotonic if run.flip else 0.0
    run.stack.machine.sleep(max(0.0, DRAIN_SECONDS - since))
    return ""


def _stop_former(run: ReleaseRun) -> str:
    idle = other(run.colour)
    run.stack.stop_colour(idle)
    return idle if run.stack.containers(idle) else "no release was live before"


def _prune(run: ReleaseRun) -> str:
    """Delete the images, app environments and database logins that neither a rollback nor a recorded colour needs."""
    stack, paths = run.stack, run.stack.paths
    current = state.load(paths)
    trim(paths.history)
    needed = kept(current)
    images.prune(stack, needed)
    for path in paths.secrets.glob("*.json"):
        if path != paths.next_environment and path.stem not in needed:
            path.unlink()
    if stack.config.data:
        Postgres(stack.docker, paths, stack.config.data).forget_logins(_logins(paths.secrets))
    return f"kept {', '.join(f'{known.tag} ({known.id})' for known in current.kept)}"


def kept(current: State) -> set[str]:
    """Return the IDs of the releases whose image and app environment must be kept."""
    return {known.id for known in (*current.kept, *current.colours.values(), current.worker) if known}


def _logins(secrets: Path) -> set[str]:
    """Return the database users in the kept app environments."""
    values = [value for path in secrets.glob("*.json") for value in app_env.load(path).values()]
    return {urlsplit(value).username or "" for value in values if value.startswith("postgresql://")}


def _set_webhook(run: ReleaseRun) -> str:
    return webhook.ensure(run.stack)


_WORKER = Step("worker", "replace the worker once the old worker has finished its job", _hand_over, _hand_back)
_RECORDED = "record the release as live"
# The step `webhook` comes last, so that all other steps are done even if Telegram cannot be reached.
_REST = (
    Step("drain", "wait until the former release has answered its last requests", _drain),
    Step("stop", "stop the former release, and keep it for a rollback", _stop_former),
    Step("prune", f"keep the last {KEPT_RELEASES} releases, and delete the others", _prune),
    Step("webhook", "set Telegram's webhook if it differs from the live release's webhook", _set_webhook),
)
TIDY = (_WORKER, Step("record", _RECORDED, _record), *_REST)
TIDY_ROLLBACK = (_WORKER, Step("record", _RECORDED, _record_rollback), *_REST)
