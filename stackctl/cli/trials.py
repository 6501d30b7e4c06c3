"""The verb `trial`, which a converge and the timers of trials call."""

import argparse

from stackctl.cli.call import Call
from stackctl.core import lock
from stackctl.core.errors import RefusedError
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.paths import TRIALS, Paths
from stackctl.host import trial

# The history must record these steps, because they run without the operator.
REVERTING = ("expire", "undo", "boot")


def step(call: Call) -> int:
    with lock.exclusive(call.paths.trial_lock, call.holder, trial.LOCK_TIMEOUT_S):
        return _step(call.arguments, call.paths, call.machine, call.log)


def remembered(arguments: argparse.Namespace, paths: Paths, machine: Machine) -> bool:
    """Return whether the history records this step. Most calls by the timer change nothing."""
    if arguments.step == "expire" and arguments.what:
        return trial.expired(paths, machine, arguments.what)
    return arguments.step in REVERTING


def subject(arguments: argparse.Namespace, _paths: Paths) -> str:
    return arguments.what or ""


def _step(arguments: argparse.Namespace, paths: Paths, machine: Machine, log: RunLog) -> int:
    if arguments.step != "boot" and not arguments.what:
        raise RefusedError("no trial was named", next_step=f"stackctl trial {arguments.step} {'|'.join(TRIALS)}")
    match arguments.step:
        case "begin":
            until = trial.begin(paths, machine, arguments.what)
            log.emit(arguments.what, "progress", f"the change is on trial until {until}")
        case "change":
            return trial.run(paths, machine, arguments.what, arguments.command or "")
        case "confirm":
            trial.confirm(paths, machine, arguments.what)
            log.emit(arguments.what, "done", "a new login has confirmed the change")
        case "expire":
            trial.revert_if_expired(paths, machine, log, arguments.what)
        case "undo":
            trial.revert(paths, machine, log, arguments.what)
        case "boot":
            trial.revert_at_boot(paths, machine, log)
    return 0
