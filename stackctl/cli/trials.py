"""trial: what a converge and its timers call, every few seconds."""

import argparse

from stackctl.cli.call import Call
from stackctl.core import lock
from stackctl.core.errors import RefusedError
from stackctl.core.events import Journal
from stackctl.core.machine import Machine
from stackctl.core.paths import TRIALS, Paths
from stackctl.host import trial

# Of a trial, history tells what became of it without the operator.
UNDOING = ("expire", "undo", "boot")


def step(call: Call) -> int:
    with lock.exclusive(call.paths.trial_lock, call.holder, trial.LOCK_PATIENCE):
        return _step(call.arguments, call.paths, call.machine, call.journal)


def remembered(arguments: argparse.Namespace, paths: Paths, machine: Machine) -> bool:
    """Whether a step is one to be remembered. The timer asks every few seconds, mostly for nothing."""
    if arguments.step == "expire" and arguments.what:
        return trial.over(paths, machine, arguments.what)
    return arguments.step in UNDOING


def subject(arguments: argparse.Namespace, _paths: Paths) -> str:
    return arguments.what or ""


def _step(arguments: argparse.Namespace, paths: Paths, machine: Machine, journal: Journal) -> int:
    if arguments.step != "boot" and not arguments.what:
        raise RefusedError(f"of what? stackctl trial {arguments.step} {'|'.join(TRIALS)}")
    match arguments.step:
        case "begin":
            until = trial.begin(paths, machine, arguments.what)
            journal.tell(arguments.what, "progress", f"on trial until {until}")
        case "change":
            return trial.change(paths, machine, arguments.what, arguments.command or "")
        case "confirm":
            trial.confirm(paths, machine, arguments.what)
            journal.tell(arguments.what, "done", "confirmed by a new login")
        case "expire":
            trial.expire(paths, machine, journal, arguments.what)
        case "undo":
            trial.undo(paths, machine, journal, arguments.what)
        case "boot":
            trial.boot(paths, machine, journal)
    return 0
