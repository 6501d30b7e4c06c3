"""The command line. Every expected end is one line and an exit code of the contract; no traceback."""

import argparse
import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn, TextIO

from . import boot, certificate, config, environment, lock, release, status
from .errors import RefusedError, StackError
from .events import Journal
from .machine import Machine
from .paths import Paths
from .stack import Stack

# A release may be at its migrations when boot comes; TimeoutStartSec of APP.service is well above this.
BOOT_PATIENCE = 600
CERTIFICATE_PATIENCE = 330


def main(app: str = "toogoodtogo") -> NoReturn:
    """Never returns: raises SystemExit with the exit code."""
    arguments = parser(app).parse_args()
    if os.geteuid() != 0:
        sys.exit(_refusal(f"only root may: sudo {' '.join(['stackctl', *sys.argv[1:]])}"))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # A closed terminal ends nothing: what was begun goes on to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(run(arguments, Paths(app), Machine(), sys.stdout))


def parser(app: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="stackctl", description=f"Runs {app} on this droplet.")
    top.add_argument("--under", metavar="ID", help="part of the errand that holds the lock under this id")
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("release", help="put an image live").add_argument("tag")
    verbs.add_parser("status", help="what runs, and what is wrong").add_argument("--json", action="store_true")
    verbs.add_parser("boot", help="for systemd: start data and the live release")
    verbs.add_parser("halt", help="for systemd: stop them in order")
    renewed = verbs.add_parser("certificate", help="for systemd: obtain the declared certificate, and serve it")
    renewed.add_argument("--renewed", action="store_true", help="for certbot's hook: serve it, obtain nothing")
    return top


def run(arguments: argparse.Namespace, paths: Paths, machine: Machine, out: TextIO) -> int:
    """The verb's exit code."""
    history = None if arguments.verb == "status" else paths.history
    journal = Journal(history, arguments.verb, machine, out, environment.secrets_in(paths.secrets))
    try:
        return _verb(arguments, paths, machine, journal)
    except StackError as error:
        journal.tell(arguments.verb, "failed", str(error))
        return error.code
    except KeyboardInterrupt:
        journal.tell(arguments.verb, "failed", "interrupted: run it again")
        return 1
    except OSError as error:
        journal.tell(arguments.verb, "failed", f"{error}: see the machine's own log (journalctl -b)")
        return 1


def _verb(arguments: argparse.Namespace, paths: Paths, machine: Machine, journal: Journal) -> int:
    name = f"{os.environ.get('SUDO_USER', 'root')}'s stackctl {arguments.verb} (process {os.getpid()})"
    if arguments.verb in {"boot", "halt"} and not paths.config.exists():
        journal.tell(arguments.verb, "done", "nothing is installed yet")
        return 0
    if arguments.verb == "release":
        release.check_tag(arguments.tag)
    stack = Stack(paths, config.load(paths), machine, journal)
    match arguments.verb:
        case "status":
            return _status(stack, as_json=arguments.json)
        case "release":
            with lock.hold(paths, name, arguments.under):
                release.release(stack, arguments.tag, again=arguments.under is not None)
        case "boot":
            with lock.exclusive(paths.work, name, BOOT_PATIENCE):
                boot.boot(stack)
        case "halt":
            boot.halt(stack)
        case "certificate":
            _certificate(stack, name, renewed=arguments.renewed)
    return 0


def _status(stack: Stack, *, as_json: bool) -> int:
    report = status.report(stack.paths, stack.config, stack.machine)
    print(json.dumps(report, indent=2) if as_json else status.text(report), file=stack.journal.out)
    return 4 if report["problems"] else 0


def _certificate(stack: Stack, name: str, *, renewed: bool) -> None:
    declared = stack.config.certificate
    if not declared:
        return
    if renewed:
        certificate.serve(stack, declared)
        return
    with lock.exclusive(stack.paths.certificate_lock, name, CERTIFICATE_PATIENCE):
        certificate.ensure(stack, declared)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Once: a second one must not interrupt the undoing.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _refusal(message: str) -> int:
    print(f"stackctl: {message}", file=sys.stderr)
    return RefusedError.code
