"""The steps that start the new release in the idle colour, probe the release, flip, and watch the release."""

from collections.abc import Mapping
from contextlib import suppress

from stackctl.app import app_env, state, webhook
from stackctl.app.stack import DRAIN_SECONDS
from stackctl.app.state import Release
from stackctl.app.telegram import Telegram
from stackctl.core.errors import FailedError, StackError
from stackctl.core.steps import Step
from stackctl.release import probe, watch
from stackctl.release.run import ReleaseRun
from stackctl.release.watch import Flip
from stackctl.services import compose


def _start(run: ReleaseRun) -> str:
    stack = run.stack
    there = run.before.colours[run.colour]
    if not there or there.id != run.release.id:
        stack.remove_colour(run.colour)
    # Save the state before the flip, so that state.json names a release for each colour to which nginx may point.
    state.save(stack.paths, run.before.with_colour(run.colour, run.release))
    stack.bring_up(run.colour, compose.up(run.project, stack.paths.app_yaml), run.compose_environment)
    return ""


def _take_down(run: ReleaseRun) -> None:
    run.stack.remove_colour(run.colour)
    state.save(run.stack.paths, run.before)
    if run.before.active:
        webhook.mend_and_tell(run.stack)


def _wait_for_health(run: ReleaseRun) -> str:
    run.stack.wait_until_well(run.project, "health", run.stack.config.healthy_timeout, fail_early=True)
    return ""


def _open_socket(run: ReleaseRun) -> str:
    unit = run.stack.paths.units.socket(run.colour)
    run.stack.systemctl("start", unit)
    return unit


def _probe(run: ReleaseRun) -> str:
    try:
        return probe.probe(run.stack, run.colour, run.release.tag, run.values)
    except FailedError as error:
        error.tail = run.logs
        raise


def _probe_against_live(run: ReleaseRun) -> str:
    """Probe the new colour. Raise FailedError if a public path fails in the new colour, but not in the live release."""
    said, stack, live = _probe(run), run.stack, run.before.release
    if live and run.before.active:
        run.failed_before = probe.failing(stack, run.before.active, _environment_of(run, live))
    if worse := _failing(run):
        raise FailedError(next(iter(worse.values())), run.logs)
    return said


def _failing(run: ReleaseRun) -> dict[str, str]:
    """Return the public paths that fail in the new colour, but did not fail in the live release."""
    found = probe.failing(run.stack, run.colour, run.values)
    return {path: seen for path, seen in found.items() if path not in run.failed_before}


def _environment_of(run: ReleaseRun, live: Release) -> Mapping[str, str]:
    """Return the live release's app environment. If its file is lost, use the new release's app environment instead."""
    with suppress(StackError):
        return app_env.load(run.stack.paths.snapshot(live.id))
    return run.values


def _flip(run: ReleaseRun, telegram: Telegram | None = None) -> str:
    run.flip = Flip.now(run.stack, telegram)
    state.activate(run.stack.paths, run.colour)
    return run.colour


def _flip_to_watch(run: ReleaseRun) -> str:
    """Note the time of Telegram's last complaint, then flip. A later complaint counts against the new release."""
    return _flip(run, run.telegram)


def flip_back(run: ReleaseRun) -> None:
    """Point nginx at the former colour again."""
    if state.load(run.stack.paths).active != run.colour:
        return
    if run.before.active:
        state.activate(run.stack.paths, run.before.active)
        # Requests on their way to the new colour must finish before the new colour is stopped.
        run.stack.machine.sleep(DRAIN_SECONDS)
    else:
        state.deactivate(run.stack.paths)


def _watch(run: ReleaseRun) -> str:
    try:
        flip = run.flip or Flip.now(run.stack, run.telegram)
        return watch.watch(run.stack, run.colour, run.telegram, flip, lambda: _failing(run))
    except FailedError as error:
        error.tail = run.logs
        raise


_START = (
    Step("start", "start the release in the idle colour", _start, _take_down),
    Step("health", "wait until the new containers are healthy", _wait_for_health),
    Step("socket", "open the socket of the new colour", _open_socket),
)
_PROBE, _FLIP = "send requests through the socket, as nginx will after the flip", "point nginx at the new colour"
SERVE_AND_WATCH = (
    *_START,
    Step("probe", _PROBE, _probe_against_live),
    Step("flip", _FLIP, _flip_to_watch, flip_back),
    Step("watch", "watch the new release for errors before it is recorded", _watch),
)
# A rollback is not watched, because there is no release to return to. So the flip of a rollback does not need
# Telegram's last complaint.
SERVE = (*_START, Step("probe", _PROBE, _probe), Step("flip", _FLIP, _flip, flip_back))
