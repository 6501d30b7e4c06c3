"""The table of verbs, with one row for each verb. A verb's modules are imported only when the verb is called."""

import argparse
import re
from collections.abc import Callable
from enum import Enum, auto
from importlib import import_module
from typing import Any, NamedTuple

from stackctl.core import names
from stackctl.core.paths import DATA_SERVICES, TRIALS

SERVICES = ("web", "worker", *DATA_SERVICES)
FLAGS = {
    "json": "print JSON",
    "dry-run": "show what would happen, and change nothing",
    "follow": "show the run in progress, or the last run if none is in progress",
    "nightly": "wait up to an hour for other runs (systemd passes this option)",
}
Parser = argparse.ArgumentParser


class Lock(Enum):
    """The locks that are held while a verb runs. NONE means no lock, or that the verb takes locks itself."""

    NONE = auto()
    SITE = auto()
    BACKUP_AND_SITE = auto()


def flags(*names: str) -> Callable[[Parser], None]:
    def add(parser: Parser) -> None:
        for name in names:
            parser.add_argument(f"--{name}", action="store_true", help=FLAGS[name])

    return add


def _id(parser: Parser) -> None:
    def checked(text: str) -> str:
        if not re.fullmatch(names.REQUEST_ID, text):
            raise argparse.ArgumentTypeError("ID must be 32 hexadecimal digits (0-9, a-f)")
        return text

    parser.add_argument(
        "--id",
        type=checked,
        help="an ID for this request: 32 hexadecimal digits. A second call with the same ID follows the run that the "
        "first call started",
    )


def _release(parser: Parser) -> None:
    flags("dry-run", "follow", "json")(parser)
    _id(parser)
    parser.add_argument("tag", nargs="?", help="the image tag, or TAG@sha256:… to require that digest")


def _rollback(parser: Parser) -> None:
    flags("json")(parser)
    _id(parser)
    parser.add_argument("tag", nargs="?", help="the tag of a kept release (default: the release that was live before)")


def _logs(parser: Parser) -> None:
    parser.add_argument("service", nargs="?", default="web", choices=SERVICES)
    parser.add_argument("-f", "--follow", action="store_true", help="keep showing new lines")
    parser.add_argument("-n", "--lines", type=int, default=100)


def _exec(parser: Parser) -> None:
    parser.add_argument("command", nargs=argparse.REMAINDER)


def _maintenance(parser: Parser) -> None:
    parser.add_argument("mode", choices=("on", "off"))


def _restore(parser: Parser) -> None:
    flags("follow", "json")(parser)
    parser.add_argument("backup", nargs="?", help="a backup ID, or latest for the newest verified backup")
    parser.add_argument(
        "--from-offsite", action="store_true", help="fetch the backup from off-site storage if it is not on the droplet"
    )
    parser.add_argument(
        "--snapshot", metavar="SNAPSHOT", help="the off-site snapshot to use if several snapshots have this backup ID"
    )
    parser.add_argument(
        "--to-database", metavar="NAME", help="restore into a new database, and leave the live data unchanged"
    )
    parser.add_argument(
        "--yes", metavar="ID", help="the backup ID again, to confirm that you want to replace the live data"
    )
    parser.add_argument(
        "--no-safety", action="store_true", help="make no pre-restore backup, so the replaced data is lost"
    )


def _certificate(parser: Parser) -> None:
    parser.add_argument(
        "--renewed",
        action="store_true",
        help="serve the renewed certificate, and request no certificate (set by certbot's hook)",
    )


def _trial(parser: Parser) -> None:
    parser.add_argument("step", choices=("begin", "change", "confirm", "expire", "undo", "boot"))
    parser.add_argument(
        "what",
        nargs="?",
        choices=TRIALS,
        help="the change on trial (omit it for the step `boot`, which reverts every change)",
    )
    parser.add_argument("command", nargs="?", help="the shell command that the step `change` runs")


def _foreign(parser: Parser) -> None:
    parser.add_argument("names", nargs="+")


def _gate(parser: Parser) -> None:
    parser.add_argument("asked")


class Verb(NamedTuple):
    """A verb. The functions are given as `module:function`. The module is in stackctl.cli."""

    name: str
    description: str
    handler: str
    """The function that does the work and returns the exit code."""
    arguments: Callable[[Parser], None] = flags()
    reads_only: bool = False
    """Whether the verb changes nothing. Then the history does not record a call."""
    in_history: bool = True
    """Whether the history records the start and the end of a call. For a timer's verb, the journal has both."""
    remembered: str = ""
    """The function that decides whether the history records a call. Empty if the history records every call."""
    subject: str = ""
    """The function that returns what the run is about, such as a tag, for its first event."""
    op: str = ""
    """The name of the verb in the history, if that name differs."""
    lock: Lock = Lock.NONE
    refused_on_copy: bool = False
    """Whether the verb is refused on a droplet that was made from an image of another droplet."""
    background: str = ""
    """The function that returns the arguments, if the verb runs in a unit of its own."""
    formerly: str = ""
    """The old name of the verb, which is accepted and announced until version OLD_NAMES_END."""


VERBS = (
    Verb(
        "release",
        "make an image live",
        "releases:release",
        _release,
        refused_on_copy=True,
        subject="releases:subject",
        lock=Lock.SITE,
        background="releases:words",
    ),
    Verb(
        "rollback",
        "make the previous release, or another kept release, live again",
        "releases:rollback",
        _rollback,
        refused_on_copy=True,
        subject="releases:subject",
        lock=Lock.SITE,
        background="releases:words",
    ),
    Verb("status", "show what is running, and any problems", "looks:status_now", flags("json"), reads_only=True),
    Verb(
        "history",
        "show past runs: who started each run, and how the run ended",
        "looks:past",
        flags("json"),
        reads_only=True,
    ),
    Verb(
        "logs",
        "show the log of a service",
        "looks:logs",
        _logs,
        reads_only=True,
    ),
    Verb("exec", "run a command in the live web container", "looks:execute", _exec, reads_only=True),
    Verb(
        "maintenance",
        "turn maintenance on or off. While it is on, nginx answers 503 to everybody",
        "services:maintenance",
        _maintenance,
    ),
    Verb(
        "backup",
        "dump the data, verify the dump, and send the backup off-site",
        "backups:backup",
        flags("nightly"),
        remembered="backups:remembered",
    ),
    Verb(
        "list-backups",
        "list the backups",
        "backups:list_backups",
        flags("json"),
        reads_only=True,
        formerly="backups",
    ),
    Verb(
        "check-offsite",
        "list the off-site backups, and the permissions of the storage key",
        "backups:check_offsite",
        flags("json"),
        reads_only=True,
        refused_on_copy=True,  # because the verb probes the storage key by adding an object
        formerly="offsite",
    ),
    Verb(
        "restore",
        "replace the live data with a backup, or load the backup into a new database",
        "restores:restore",
        _restore,
        refused_on_copy=True,
        subject="restores:subject",
        lock=Lock.BACKUP_AND_SITE,
        background="restores:words",
    ),
    Verb("boot", "start the data services and the live release (run by systemd)", "services:boot"),
    Verb("halt", "stop the app, then the data services (run by systemd)", "services:halt"),
    Verb(
        "before-docker",
        "keep Docker from starting the app if this droplet was made from an image of another (run by systemd)",
        "services:before_docker",
        in_history=False,
    ),
    Verb(
        "certificate",
        "request the declared certificate if needed, and serve it (run by systemd)",
        "timers:certificate_now",
        _certificate,
        in_history=False,
    ),
    Verb(
        "trial",
        "change SSH or the firewall on trial: revert the change unless a new login confirms it (run by the "
        "converge and systemd)",
        "trials:step",
        _trial,
        remembered="trials:remembered",
        subject="trials:subject",
        op="undo",
    ),
    Verb(
        "remove-foreign",
        "remove foreign things by the names that status lists (run by the converge)",
        "removal:remove",
        _foreign,
    ),
    Verb(
        "upgrade",
        "install Debian's daily upgrade, while no other run is in progress (run by systemd)",
        "timers:upgrade",
        in_history=False,
    ),
    Verb(
        "integrity",
        "check that the files of Debian's packages are unchanged (run by systemd)",
        "timers:integrity",
        in_history=False,
    ),
    Verb(
        "amcheck",
        "check PostgreSQL's tables and indexes, while no backup or restore runs (run by systemd)",
        "timers:amcheck",
        in_history=False,
    ),
    Verb(
        "reboot",
        "reboot if an upgrade requires a reboot, while no other run is in progress (run by systemd)",
        "timers:reboot",
        in_history=False,
    ),
    Verb("gate", "run CI's command, if CI's key allows that command (run by sshd)", "", _gate),
)
BY_NAME = {verb.name: verb for verb in VERBS}
BY_OLD_NAME = {verb.formerly: verb for verb in VERBS if verb.formerly}


def function(name: str) -> Callable[..., Any]:
    """Import a function that a row of the table names."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"stackctl.cli.{module}"), attribute)
    return found
