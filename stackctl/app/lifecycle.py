"""
The verbs `boot` and `halt`, and the recovery of an interrupted release.

APP.service calls `boot` when the droplet starts, and `halt` before the droplet stops. Neither verb pulls an image or
recreates the containers of the recorded release. Stale sockets need no cleanup, because systemd removes old sockets
before creating new sockets.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from stackctl.app import app_env, state, unfinished_restore, webhook
from stackctl.app.stack import DRAIN_SECONDS, Stack
from stackctl.app.state import State
from stackctl.core import durable, instance
from stackctl.core.errors import FailedError, StackError
from stackctl.core.paths import COLOURS, other
from stackctl.services import compose


def boot(stack: Stack) -> None:
    """Start the data services, the active colour and its worker, and stop the other colour.

    If an interrupted restore could not be undone (restore/settle.py), only the data services start, because the bot
    must not work on partly restored data. On a copy, only the data services start, because the original droplet may
    still run the app.
    """
    if closing := unfinished_restore.closing(stack.paths):
        # close the site, because a killed restore may have left the site open
        durable.write(stack.paths.maintenance, b"", 0o644)
        _start_data_only(stack, closing)
        return
    if stack.is_copy:
        _start_data_only(stack, instance.REMEDY)
        return
    app = {"app": start_app, "worker": start_worker, "health": wait_for_app}
    # The webhook comes last, because a container that has ended may have deleted the webhook, and because no other step
    # should wait for Telegram.
    _each(stack, idle=_bring_back, data=_start_data, **app, webhook=webhook.mend)


def _start_data_only(stack: Stack, reason: str) -> None:
    _each(stack, app=stop_app, worker=stop_worker, data=_start_data)
    stack.log.emit("app", "failed", reason)


def halt(stack: Stack) -> None:
    """Stop the app before the data services, so that nothing writes when the data services stop.

    PostgreSQL's STOPSIGNAL requests a fast shutdown.
    """
    _each(stack, app=stop_app, worker=stop_worker, data=_stop_data)


def _each(stack: Stack, **steps: Callable[[Stack], str]) -> None:
    """Run every step, even if an earlier step failed. At the end, raise a FailedError that names the failed steps."""
    failures: list[str] = []
    for name, act in steps.items():
        try:
            stack.log.step(name, partial(act, stack))
        except (StackError, OSError) as error:
            stack.log.emit_tail(name, getattr(error, "tail", ""))
            failures.append(f"{name}: {getattr(error, 'message', error)}")
    if failures:
        raise FailedError(
            "; ".join(failures), next_step=f"sudo stackctl status, then systemctl restart {stack.paths.units.app}"
        )


def needs_recovery(stack: Stack) -> bool:
    """Return whether an interrupted release left containers running that do not belong to the recorded release.

    If Docker does not answer, return False, because the next step that needs Docker reports this failure.
    """
    with suppress(StackError):
        current = state.load(stack.paths)
        recorded = current.recorded_colour
        if recorded and any(container.serves for container in stack.containers(recorded)):
            beside = any(container.serves for container in stack.containers(other(recorded)))
            return current.active != recorded or beside or _worker_differs(stack, current)
    return False


def _worker_differs(stack: Stack, current: State) -> bool:
    runs = [one.labels.get(stack.paths.docker.release_label) for one in stack.worker if one.state != "exited"]
    return stack.config.works and runs != ([current.worker.id] if current.worker else [])


def recover(stack: Stack) -> str:
    """Bring back the web and worker containers of the recorded release. `boot` does the same."""
    _bring_back(stack)
    start_worker(stack)
    webhook.mend_and_tell(stack)
    current = state.load(stack.paths)
    return f"{current.release.tag if current.release else 'nothing'} in {current.active} is live again, as recorded"


def _bring_back(stack: Stack) -> str:
    """Make the recorded release live, and stop the other colour.

    An uncommitted release is never brought back, because its watch may not have finished.

    After a hard reset, Docker also restarts the former colour if a release had not yet stopped that colour.
    """
    recorded = state.load(stack.paths).recorded_colour
    if recorded:
        state.activate(stack.paths, recorded)
    active = state.load(stack.paths).active
    idle = {colour: there for colour in COLOURS if colour != active and (there := stack.containers(colour))}
    if any(container.serves for there in idle.values() for container in there):
        stack.machine.sleep(DRAIN_SECONDS)
    for colour in idle:
        stack.stop_colour(colour)
    return ", ".join(idle)


def _start_data(stack: Stack) -> str:
    if not stack.paths.data_yaml.exists():
        return "this host has no data services"
    stack.start_data("data")
    return "healthy"


def start_app(stack: Stack) -> str:
    current = state.load(stack.paths)
    if not current.active:
        return "no release yet"
    colour, release = current.active, current.release
    if not release:
        raise FailedError(f"{stack.paths.state} does not name the release in {colour}", next_step="release again")
    values = app_env.load(stack.paths.snapshot(release.id))
    argv = compose.resume(stack.paths.docker.project(colour), stack.paths.app_yaml)
    stack.bring_up(colour, argv, stack.web_environment(colour, release, values))
    # The socket starts before the app is healthy. Until the app is healthy, clients are told to retry.
    stack.systemctl("start", stack.paths.units.socket(colour))
    return f"{release.tag} in {colour}"


def start_worker(stack: Stack) -> str:
    release = state.load(stack.paths).worker
    if not release or not stack.config.works:
        stack.stop_worker()  # Docker restarts an earlier release's worker after a hard reset
        return "no worker, because this droplet is isolated" if stack.config.isolated else "no worker"
    # The worker of an interrupted release is replaced. Any other worker is started without being recreated.
    foreign = any(container.labels.get(stack.paths.docker.release_label) != release.id for container in stack.worker)
    if foreign:
        stack.stop_worker()
    bring = compose.up if foreign else compose.resume
    stack.bring_up_worker(release, bring(stack.paths.docker.worker_project, stack.paths.worker_yaml))
    return release.tag


def wait_for_app(stack: Stack) -> str:
    colour = state.load(stack.paths).active
    if not colour:
        return "no release yet"
    stack.wait_until_well(stack.paths.docker.project(colour), "health", stack.config.healthy_timeout, fail_early=False)
    return "healthy"


def stop_app(stack: Stack) -> str:
    """Stop both colours."""
    stack.docker.stop([c for colour in COLOURS for c in stack.containers(colour)], stack.config.stop_grace)
    return ""


def stop_worker(stack: Stack) -> str:
    stack.stop_worker()
    return ""


def _stop_data(stack: Stack) -> str:
    stack.docker.stop(stack.docker.containers(stack.paths.docker.data_project))
    return ""
