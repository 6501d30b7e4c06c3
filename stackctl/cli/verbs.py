"""The verbs, one row each. A verb's modules are imported when it is called."""

import argparse
from collections.abc import Callable
from enum import Enum, auto
from importlib import import_module
from typing import Any, NamedTuple

from stackctl.core.paths import DATA_SERVICES, TRIALS

SERVICES = ("web", "worker", *DATA_SERVICES)
FLAGS = {
    "json": "for machines",
    "dry-run": "say what would happen, and change nothing",
    "follow": "show the one that is under way, or the last one",
    "nightly": "for systemd: wait for what is under way, up to an hour",
}
Parser = argparse.ArgumentParser


class Lock(Enum):
    """What is held while a verb is at work, unless its handler takes locks itself."""

    NONE = auto()
    SITE = auto()
    BACKUP_AND_SITE = auto()


def flags(*names: str) -> Callable[[Parser], None]:
    def add(parser: Parser) -> None:
        for name in names:
            parser.add_argument(f"--{name}", action="store_true", help=FLAGS[name])

    return add


def _release(parser: Parser) -> None:
    flags("dry-run", "follow", "json")(parser)
    parser.add_argument("tag", nargs="?", help="TAG, or TAG@sha256:… when it has to be that very image")


def _rollback(parser: Parser) -> None:
    flags("json")(parser)
    parser.add_argument("tag", nargs="?", help="which; the one before when left out")


def _logs(parser: Parser) -> None:
    parser.add_argument("service", nargs="?", default="web", choices=SERVICES)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as more is said")
    parser.add_argument("-n", "--lines", type=int, default=100)


def _exec(parser: Parser) -> None:
    parser.add_argument("command", nargs=argparse.REMAINDER)


def _maintenance(parser: Parser) -> None:
    parser.add_argument("mode", choices=("on", "off"))


def _restore(parser: Parser) -> None:
    flags("follow", "json")(parser)
    parser.add_argument("backup", nargs="?", help="its id, or latest: the newest one that is verified")
    parser.add_argument("--from-offsite", action="store_true", help="from off the droplet, where it isn't here")
    parser.add_argument("--snapshot", metavar="SNAPSHOT", help="off the droplet, where several have this id")
    parser.add_argument(
        "--to-database", metavar="NAME", help="into this one, beside the live one, which stays as it is"
    )
    parser.add_argument("--yes", metavar="ID", help="that id once more: yes, what is live gives way to it")
    parser.add_argument(
        "--no-safety", action="store_true", help="when what gives way can't be dumped any more: it is lost"
    )


def _certificate(parser: Parser) -> None:
    parser.add_argument("--renewed", action="store_true", help="for certbot's hook: serve it, obtain nothing")


def _trial(parser: Parser) -> None:
    parser.add_argument("step", choices=("begin", "change", "confirm", "expire", "undo", "boot"))
    parser.add_argument("what", nargs="?", choices=TRIALS, help="of all of them, for boot")
    parser.add_argument("command", nargs="?", help="for change: what the shell has to do")


def _foreign(parser: Parser) -> None:
    parser.add_argument("names", nargs="+")


def _gate(parser: Parser) -> None:
    parser.add_argument("asked")


class Verb(NamedTuple):
    """Functions are named as module:function below stackctl.cli; each gets the Call."""

    name: str
    what: str
    handler: str
    """Does it; its exit code."""
    arguments: Callable[[Parser], None] = flags()
    reads_only: bool = False
    """It changes nothing, and leaves no trace in history."""
    journalled: bool = True
    """history has its beginning and its end. Of a timer's verb, the journal has them."""
    remembered: str = ""
    """Whether this call is one for history at all, where not each of them is."""
    subject: str = ""
    """What it is about, for its first event: a tag, say."""
    op: str = ""
    """Its name in history, where that is another one."""
    lock: Lock = Lock.NONE
    background: str = ""
    """It runs in a unit of its own, with these words."""


VERBS = (
    Verb(
        "release",
        "put an image live",
        "releases:release",
        _release,
        subject="releases:subject",
        lock=Lock.SITE,
        background="releases:words",
    ),
    Verb(
        "rollback",
        "put live what was before",
        "releases:rollback",
        _rollback,
        subject="releases:subject",
        lock=Lock.SITE,
        background="releases:words",
    ),
    Verb("status", "what runs, and what is wrong", "looks:status_now", flags("json"), reads_only=True),
    Verb("history", "what was done here, by whom, and how it ended", "looks:past", flags("json"), reads_only=True),
    Verb(
        "logs",
        "what a service of the live release, or of the data services, says",
        "looks:logs",
        _logs,
        reads_only=True,
    ),
    Verb("exec", "run a command inside the live release", "looks:execute", _exec, reads_only=True),
    Verb("maintenance", "have nginx answer 503 to everybody", "services:maintenance", _maintenance),
    Verb(
        "backup",
        "back the data up: dumped, restored elsewhere for proof, sent off the droplet",
        "backups:backup",
        flags("nightly"),
    ),
    Verb("backups", "which there are, and what is known of each", "backups:backups", flags("json"), reads_only=True),
    Verb(
        "offsite",
        "what lies off the droplet, and what its key may do there",
        "backups:off_the_droplet",
        flags("json"),
        reads_only=True,
    ),
    Verb(
        "restore",
        "put a backup's data in the place of what is live, or beside it",
        "restores:restore",
        _restore,
        subject="restores:subject",
        lock=Lock.BACKUP_AND_SITE,
        background="restores:words",
    ),
    Verb("boot", "for systemd: start data and the live release", "services:boot"),
    Verb("halt", "for systemd: stop them in order", "services:halt"),
    Verb(
        "certificate",
        "for systemd: obtain the declared certificate, and serve it",
        "timers:certificate_now",
        _certificate,
        journalled=False,
    ),
    Verb(
        "trial",
        "for the converge and systemd: a change of SSH or of the firewall that undoes itself",
        "trials:step",
        _trial,
        remembered="trials:remembered",
        subject="trials:subject",
        op="undo",
    ),
    Verb(
        "remove-foreign",
        "for the converge: take away what status lists as foreign, by its name",
        "removal:remove",
        _foreign,
    ),
    Verb(
        "upgrade",
        "for systemd: Debian's daily upgrade, while nothing else is under way",
        "timers:upgrade",
        journalled=False,
    ),
    Verb(
        "integrity",
        "for systemd: whether the files of Debian's packages are as installed",
        "timers:integrity",
        journalled=False,
    ),
    Verb(
        "amcheck",
        "for systemd: whether PostgreSQL's tables and indexes are whole, amid no backup or restore",
        "timers:amcheck",
        journalled=False,
    ),
    Verb(
        "reboot",
        "for systemd: the reboot that an upgrade asks for, while nothing else is under way",
        "timers:reboot",
        journalled=False,
    ),
    Verb("gate", "for sshd: what CI's key asked for, if it may", "", _gate),
)
BY_NAME = {verb.name: verb for verb in VERBS}


def function(name: str) -> Callable[..., Any]:
    """The function that a row names, its module imported now."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(f"stackctl.cli.{module}"), attribute)
    return found
