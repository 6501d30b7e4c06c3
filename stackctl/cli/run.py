"""Runs one verb, from its arguments to its exit code."""

import argparse
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

from stackctl.app import app_env
from stackctl.cli import background, caller, gate, verbs
from stackctl.cli.call import Call
from stackctl.cli.main import parser
from stackctl.cli.verbs import Lock, Verb
from stackctl.core import instance, lock
from stackctl.core.errors import RefusedError, StackError
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.old_names import now_called
from stackctl.core.paths import Paths
from stackctl.core.printable import printable


def main(arguments: argparse.Namespace, paths: Paths) -> int:
    """Run the verb on this machine."""
    return run(arguments, paths, Machine(), sys.stdout, sys.stderr)


def run(arguments: argparse.Namespace, paths: Paths, machine: Machine, out: TextIO, err: TextIO) -> int:
    """Run the verb and return its exit code.

    A run reports a failure as an event. A verb that is not a run prints a failure to `err`.
    """
    if renamed := verbs.BY_OLD_NAME.get(arguments.verb):
        print(f"stackctl: {now_called(arguments.verb, renamed.name)}", file=err)
        arguments.verb = renamed.name
    verb = arguments.verb
    if verb == "gate":
        try:
            asked = gate.parse(arguments.asked)
        except RefusedError as error:
            print(printable(f"stackctl: {error}"), file=err)
            return error.code
        return run(parser(paths.app).parse_args(asked), paths, machine, out, err)
    row = verbs.BY_NAME[verb]
    started_here = bool(row.background) and arguments.run is None
    silent = bool(row.remembered) and not verbs.function(row.remembered)(arguments, paths, machine)
    history = None if row.reads_only or started_here or silent else paths.history
    began = machine.now()
    name = arguments.run or f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z"
    op = "dry-run" if getattr(arguments, "dry_run", False) else row.op or verb
    spare = paths.unwritten if history else None
    if arguments.key is None:
        arguments.key = caller.key(paths, machine) if history or started_here else ""
    log = RunLog(history, op, machine, out, app_env.secrets_in(paths.secrets), name, spare)
    told = history and row.in_history
    if told:
        subject = verbs.function(row.subject)(arguments, paths) if row.subject else ""
        log.begin(arguments.by, subject, arguments.key, getattr(arguments, "id", None))
    code, message = _ended(lambda: _handled(row, Call(arguments, paths, machine, log)))
    if told:
        log.end(code, message)
    elif message and message != log.failure:  # not shown already
        print(printable(f"stackctl {verb}: {message}"), file=err)
    return code


def _handled(row: Verb, call: Call) -> int:
    """Run the verb's handler under the verb's locks, or start the verb in a separate systemd unit."""
    if row.refused_on_copy and call.stack.is_copy:
        raise instance.refusal()
    if row.background and call.arguments.run is None:
        return background.run(call, verbs.function(row.background))
    # Import the handler before waiting for a lock, because the converge that holds the lock may replace the zipapp
    # meanwhile.
    handler = verbs.function(row.handler)
    with ExitStack() as held:
        if row.lock is not Lock.NONE:
            name, paths, _ = call.holder, call.paths, call.stack
            if row.lock is Lock.BACKUP_AND_SITE:
                held.enter_context(lock.exclusive(paths.backup_lock, name, lock.LOCK_TIMEOUT_S))
            held.enter_context(lock.hold(paths, name, call.arguments.lock_id))
        return int(handler(call))


def _ended(act: Callable[[], int]) -> tuple[int, str]:
    """Call `act`, and return the exit code and the cause of a failure, if any."""
    try:
        return act(), ""
    except StackError as error:
        return error.code, str(error)
    except KeyboardInterrupt:
        return 1, "the command was interrupted. Next: run the same command again"
    except OSError as error:
        return 1, f"{error}. Next: see the droplet's own log (journalctl -b)"
    except Exception as error:  # a follower must also see internal errors
        print(printable(traceback.format_exc(), "\t\n"), file=sys.stderr)
        return 4, f"internal error in stackctl ({error!r}). Next: run stackctl status, and report this"
