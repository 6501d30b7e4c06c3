"""The command line. Every expected end is one line and an exit code of the contract; no traceback."""

import argparse
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from stackctl.cli import verbs
from stackctl.core.errors import RefusedError
from stackctl.core.paths import Paths
from stackctl.core.printable import printable


def main(app: str) -> NoReturn:
    """Never returns: raises SystemExit with the exit code."""
    arguments = parser(app).parse_args()
    if os.geteuid() != 0:
        sys.exit(_refusal(f"only root may: sudo {' '.join(['stackctl', *sys.argv[1:]])}"))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # A closed terminal ends nothing: what was begun goes on to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(verbs.function("run:main")(arguments, Paths(app)))


def parser(app: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="stackctl", description=f"Runs {app} on this droplet.")
    top.add_argument("--under", metavar="ID", help="part of the errand that holds the lock under this id")
    top.add_argument("--run", metavar="ID", help="for systemd: do it here, as the run of this id")
    top.add_argument("--by", default=os.environ.get("SUDO_USER", "root"), help="for systemd: who asked for it")
    top.add_argument("--key", help="for systemd: whose key that was")
    rows = top.add_subparsers(dest="verb", required=True)

    for verb in verbs.VERBS:
        verb.arguments(rows.add_parser(verb.name, help=verb.what))
    return top


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Once: a second one must not interrupt the undoing.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _refusal(message: str) -> int:
    print(printable(f"stackctl: {message}"), file=sys.stderr)
    return RefusedError.code
