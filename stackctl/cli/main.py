"""The command line.

For every expected failure, stackctl prints one line without a traceback, and exits with a documented code.
"""

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
    """Parse the command line, run the verb and exit with its code."""
    arguments = parser(app).parse_args()
    if os.geteuid() != 0:
        sys.exit(_refusal(f"this command must run as root. Next: sudo {' '.join(['stackctl', *sys.argv[1:]])}"))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # A closed terminal must not end the run.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(verbs.function("run:main")(arguments, Paths(app)))


def parser(app: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="stackctl", description=f"Runs {app} on this droplet.")
    top.add_argument("--lock-id", metavar="ID", help="the ID of the lock that the calling converge holds")
    top.add_argument(
        "--run", metavar="ID", help="do the work in this process, under this run ID (systemd passes this option)"
    )
    top.add_argument(
        "--by", default=os.environ.get("SUDO_USER", "root"), help="who started the run (systemd passes this option)"
    )
    top.add_argument("--key", help="the name of the SSH key's owner (systemd passes this option)")
    # Without a metavar, the help text would also list the old names of verbs.
    rows = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    for verb in verbs.VERBS:
        verb.arguments(rows.add_parser(verb.name, help=verb.description))
    for old_name, verb in verbs.BY_OLD_NAME.items():
        verb.arguments(rows.add_parser(old_name))
    return top


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Ignore all further signals, because a second signal must not interrupt the undo.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _refusal(message: str) -> int:
    print(printable(f"stackctl: {message}"), file=sys.stderr)
    return RefusedError.code
