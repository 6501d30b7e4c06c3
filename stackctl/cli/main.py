"""The command line. Every expected end is one line and an exit code of the contract; no traceback."""

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from types import FrameType
from typing import NoReturn, TextIO

from stackctl.app import app_env, lifecycle, state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.backup import create, listing, offsite
from stackctl.cli import background, caller, containers, gate, status
from stackctl.core import config, durable, history, lock
from stackctl.core.errors import FailedError, PersonNeededError, RefusedError, StackError
from stackctl.core.events import Journal
from stackctl.core.machine import Machine
from stackctl.core.paths import DATA_SERVICES, TRIALS, Paths
from stackctl.core.printable import printable
from stackctl.host import certificate, foreign, trial, upkeep
from stackctl.release import release
from stackctl.restore import restore
from stackctl.restore.plan import check_answer
from stackctl.restore.run import Request
from stackctl.services.postgres import Postgres

# A release may be at its migrations when boot comes; TimeoutStartSec of APP.service is well above this.
BOOT_PATIENCE = 600
CERTIFICATE_PATIENCE = 330
# A release with its migrations, or a backup with its proof, comes to an end within it; else the next day has its turn.
UPGRADE_PATIENCE = 3600
REBOOT_PATIENCE = 1800
NIGHTLY_PATIENCE = 3600
SERVICES = ("web", "worker", *DATA_SERVICES)
# These change nothing, and leave no trace in history.
LOOKING = ("status", "history", "logs", "exec", "backups", "offsite")
# Of a trial, history tells what became of it without the operator.
UNDOING = ("expire", "undo", "boot")
# A timer's: the journal has them.
DAILY = ("certificate", "upgrade", "integrity", "amcheck", "reboot")
FLAGS = {
    "json": "for machines",
    "dry-run": "say what would happen, and change nothing",
    "follow": "show the one that is under way, or the last one",
    "nightly": "for systemd: wait for what is under way, up to an hour",
}


def main(app: str) -> NoReturn:
    """Never returns: raises SystemExit with the exit code."""
    arguments = parser(app).parse_args()
    if os.geteuid() != 0:
        sys.exit(_refusal(f"only root may: sudo {' '.join(['stackctl', *sys.argv[1:]])}"))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    # A closed terminal ends nothing: what was begun goes on to its end.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(run(arguments, Paths(app), Machine(), sys.stdout, sys.stderr))


def parser(app: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="stackctl", description=f"Runs {app} on this droplet.")
    top.add_argument("--under", metavar="ID", help="part of the errand that holds the lock under this id")
    top.add_argument("--run", metavar="ID", help="for systemd: do it here, as the run of this id")
    top.add_argument("--by", default=os.environ.get("SUDO_USER", "root"), help="for systemd: who asked for it")
    top.add_argument("--key", help="for systemd: whose key that was")
    verbs = top.add_subparsers(dest="verb", required=True)

    def verb(name: str, what: str, *flags: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=what)
        for flag in flags:
            found.add_argument(f"--{flag}", action="store_true", help=FLAGS[flag])
        return found

    going = verb("release", "put an image live", "dry-run", "follow", "json")
    going.add_argument("tag", nargs="?", help="TAG, or TAG@sha256:… when it has to be that very image")
    back = verb("rollback", "put live what was before", "json")
    back.add_argument("tag", nargs="?", help="which; the one before when left out")
    verb("status", "what runs, and what is wrong", "json")
    verb("history", "what was done here, by whom, and how it ended", "json")
    said = verb("logs", "what a service of the live release, or of the data services, says")
    said.add_argument("service", nargs="?", default="web", choices=SERVICES)
    said.add_argument("-f", "--follow", action="store_true", help="go on as more is said")
    said.add_argument("-n", "--lines", type=int, default=100)
    verb("exec", "run a command inside the live release").add_argument("command", nargs=argparse.REMAINDER)
    verb("maintenance", "have nginx answer 503 to everybody").add_argument("mode", choices=("on", "off"))
    verb("backup", "back the data up: dumped, restored elsewhere for proof, sent off the droplet", "nightly")
    verb("backups", "which there are, and what is known of each", "json")
    verb("offsite", "what lies off the droplet, and what its key may do there", "json")
    again = verb("restore", "put a backup's data in the place of what is live, or beside it", "follow", "json")
    again.add_argument("backup", nargs="?", help="its id, or latest: the newest one that is verified")
    again.add_argument("--from-offsite", action="store_true", help="from off the droplet, where it isn't here")
    again.add_argument("--snapshot", metavar="SNAPSHOT", help="off the droplet, where several have this id")
    again.add_argument("--to-database", metavar="NAME", help="into this one, beside the live one, which stays as it is")
    again.add_argument("--yes", metavar="ID", help="that id once more: yes, what is live gives way to it")
    again.add_argument(
        "--no-safety", action="store_true", help="when what gives way can't be dumped any more: it is lost"
    )
    verb("boot", "for systemd: start data and the live release")
    verb("halt", "for systemd: stop them in order")
    renewed = verb("certificate", "for systemd: obtain the declared certificate, and serve it")
    renewed.add_argument("--renewed", action="store_true", help="for certbot's hook: serve it, obtain nothing")
    tried = verb("trial", "for the converge and systemd: a change of SSH or of the firewall that undoes itself")
    tried.add_argument("step", choices=("begin", "change", "confirm", "expire", "undo", "boot"))
    tried.add_argument("what", nargs="?", choices=TRIALS, help="of all of them, for boot")
    tried.add_argument("command", nargs="?", help="for change: what the shell has to do")
    verb("remove-foreign", "for the converge: take away what status lists as foreign, by its name").add_argument(
        "names", nargs="+"
    )
    verb("upgrade", "for systemd: Debian's daily upgrade, while nothing else is under way")
    verb("integrity", "for systemd: whether the files of Debian's packages are as installed")
    verb("amcheck", "for systemd: whether PostgreSQL's tables and indexes are whole, amid no backup or restore")
    verb("reboot", "for systemd: the reboot that an upgrade asks for, while nothing else is under way")
    verb("gate", "for sshd: what CI's key asked for, if it may").add_argument("asked")
    return top


def run(arguments: argparse.Namespace, paths: Paths, machine: Machine, out: TextIO, err: TextIO) -> int:
    """The verb's exit code. What a run has to say is among its events; any other verb complains to `err`."""
    verb = arguments.verb
    if verb == "gate":
        try:
            asked = gate.parse(arguments.asked)
        except RefusedError as error:
            print(printable(f"stackctl: {error}"), file=err)
            return error.code
        return run(parser(paths.app).parse_args(asked), paths, machine, out, err)
    started_here = verb in background.VERBS and arguments.run is None
    silent = verb == "trial" and not _undoes(arguments, paths, machine)
    history = None if verb in LOOKING or started_here or silent else paths.history
    began = machine.now()
    name = arguments.run or f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z"
    op = "dry-run" if getattr(arguments, "dry_run", False) else "undo" if verb == "trial" else verb
    spare = paths.unwritten if history else None
    if arguments.key is None:
        arguments.key = caller.key(paths, machine) if history or started_here else ""
    journal = Journal(history, op, machine, out, app_env.secrets_in(paths.secrets), name, spare)
    if history and verb not in DAILY:
        journal.begin(arguments.by, _asked_for(arguments, paths), arguments.key)
    code, message = _ended(lambda: _verb(arguments, paths, machine, journal))
    if history and verb not in DAILY:
        journal.end(code, message)
    elif message and message != journal.failure:  # that was said already
        print(printable(f"stackctl {verb}: {message}"), file=err)
    return code


def _undoes(arguments: argparse.Namespace, paths: Paths, machine: Machine) -> bool:
    """Whether a step of a trial is one to be remembered. The timer asks every few seconds, mostly for nothing."""
    if arguments.step == "expire" and arguments.what:
        return trial.over(paths, machine, arguments.what)
    return arguments.step in UNDOING


def _holder(arguments: argparse.Namespace, what: str) -> str:
    """For those who are kept out meanwhile."""
    key = f"{arguments.key}, " if arguments.key else ""
    return f"{arguments.by}'s {what} ({key}process {os.getpid()})"


def _asked_for(arguments: argparse.Namespace, paths: Paths) -> str:
    """The tag or the trial; a rollback that names none is told by the one that it leads to."""
    if arguments.verb == "trial":
        return arguments.what or ""
    if arguments.verb == "restore":
        beside = f" --to-database {arguments.to_database}" if arguments.to_database else ""
        return f"{arguments.backup}{beside}"
    tag = getattr(arguments, "tag", None) or ""
    if arguments.verb == "rollback" and not tag:
        with suppress(StackError):
            return release.target(state.load(paths), None).tag
    return tag


def _ended(act: Callable[[], int]) -> tuple[int, str]:
    """Exit code and the cause, when there is one."""
    try:
        return act(), ""
    except StackError as error:
        return error.code, str(error)
    except KeyboardInterrupt:
        return 1, "interrupted: run it again"
    except OSError as error:
        return 1, f"{error}: see the machine's own log (journalctl -b)"
    except Exception as error:  # whoever follows has to hear of a fault of our own, too
        print(printable(traceback.format_exc(), "\t\n"), file=sys.stderr)
        return 4, f"a fault of stackctl's own ({error!r}): stackctl status, and tell us"


def _verb(arguments: argparse.Namespace, paths: Paths, machine: Machine, journal: Journal) -> int:
    verb = arguments.verb
    if verb in {"boot", "halt"} and not paths.config.exists():
        journal.tell(verb, "done", "nothing is installed yet")
        return 0
    if verb in background.VERBS and arguments.run is None:
        return _in_a_unit(arguments, paths, machine, journal)
    name = _holder(arguments, f"stackctl {verb}")
    if verb == "trial":
        with lock.exclusive(paths.trial_lock, name, trial.LOCK_PATIENCE):
            return _trial(arguments, paths, machine, journal)
    stack = Stack(paths, config.load(paths), machine, journal)
    match verb:
        case "release" | "rollback":
            with lock.hold(paths, name, arguments.under):
                _change(stack, arguments)
        case "backup":
            _backup(stack, arguments, name)
        case "restore":
            with (
                lock.exclusive(paths.backup_lock, name, lock.PATIENCE),
                lock.hold(paths, name, arguments.under),
            ):
                restore.restore(stack, _restored(arguments))
        case "boot" | "halt" | "certificate" | "upgrade" | "integrity" | "amcheck" | "reboot":
            _for_systemd(stack, arguments, name)
        case "maintenance":
            _maintenance(stack, arguments.mode)
        case "remove-foreign":
            for gone in foreign.remove(stack.paths, stack.config, stack.machine, arguments.names):
                journal.tell("foreign", "done", f"removed {gone}")
        case _:
            return _look(stack, arguments)
    return 0


def _change(stack: Stack, arguments: argparse.Namespace) -> None:
    half = unfinished_restore.load(stack.paths)
    if half and not half.placed:
        raise RefusedError(half.remedy)
    match arguments.verb:
        case "release":
            release.release(stack, arguments.tag, again=arguments.under is not None, dry_run=arguments.dry_run)
        case "rollback":
            release.rollback(stack, arguments.tag)


def _trial(arguments: argparse.Namespace, paths: Paths, machine: Machine, journal: Journal) -> int:
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


def _for_systemd(stack: Stack, arguments: argparse.Namespace, name: str) -> None:
    match arguments.verb:
        case "boot":
            with lock.exclusive(stack.paths.work, name, BOOT_PATIENCE):
                lifecycle.boot(stack)
        case "halt":
            lifecycle.halt(stack)
        case "certificate":
            _certificate(stack, name, renewed=arguments.renewed)
        case "upgrade":
            with _nothing_under_way(stack.paths, "the daily upgrade of Debian's packages", UPGRADE_PATIENCE):
                print(printable(upkeep.upgrade(stack.paths, stack.machine)), file=stack.journal.out)
        case "integrity":
            upkeep.compare(stack.paths, stack.machine)
        case "amcheck":
            _amcheck(stack)
        case "reboot":
            with _nothing_under_way(stack.paths, "the reboot that an upgrade asks for", REBOOT_PATIENCE):
                upkeep.reboot(stack.machine)


@contextmanager
def _nothing_under_way(paths: Paths, name: str, patience: float) -> Iterator[None]:
    """No backup that is being proven or sent, either: of the site's lock it has no more need."""
    with lock.exclusive(paths.backup_lock, name, patience), lock.hold(paths, name, patience=patience):
        yield


def _look(stack: Stack, arguments: argparse.Namespace) -> int:
    out = stack.journal.out
    match arguments.verb:
        case "status":
            report = status.report(stack.paths, stack.config, stack.machine)
            print(json.dumps(report, indent=2) if arguments.json else status.text(report), file=out)
            return 4 if report["problems"] else 0
        case "history":
            runs = history.runs(stack.paths)
            print(json.dumps(runs, indent=2) if arguments.json else history.text(runs), file=out)
        case "backups":
            paths = stack.paths
            print(json.dumps(listing.documents(paths), indent=2) if arguments.json else listing.text(paths), file=out)
        case "offsite":
            _offsite(stack, as_json=arguments.json)
        case "logs":
            return containers.logs(stack, arguments.service, arguments.lines, follow=arguments.follow)
        case "exec":
            containers.execute(stack, arguments.command)
    return 0


def _in_a_unit(arguments: argparse.Namespace, paths: Paths, machine: Machine, journal: Journal) -> int:
    """Start a release, a rollback or a restore and follow it, or follow the one that there is."""
    show = background.shown(journal.out, as_json=arguments.json)
    if getattr(arguments, "follow", False):
        with _going_on(paths):
            return background.follow(paths, machine, background.last_run(paths), show)
    if arguments.verb == "release" or (arguments.verb == "rollback" and arguments.tag):
        release.parse(arguments.tag or "")
    declared = config.load(paths)
    under = ["--under", arguments.under] if arguments.under else []
    asked = ["--run", journal.run, "--by", arguments.by, f"--key={arguments.key}", *under, arguments.verb]
    if arguments.verb == "restore":
        try:
            asked += _confirmed(arguments, Stack(paths, declared, machine, journal))
        except KeyboardInterrupt:
            raise FailedError("interrupted: nothing was changed") from None
    else:
        asked += ["--dry-run"] if getattr(arguments, "dry_run", False) else []
        asked += [arguments.tag] if arguments.tag else []
    with _going_on(paths):
        background.start(paths, declared, machine, asked)
        return background.follow(paths, machine, journal.run, show)


@contextmanager
def _going_on(paths: Paths) -> Iterator[None]:
    """Whoever stops following ends nothing by it, and is told so."""
    try:
        yield
    except KeyboardInterrupt:
        raise PersonNeededError(
            "if it was begun, it goes on by itself: stackctl release --follow shows it, "
            f"systemctl stop {paths.release_unit} ends and undoes it"
        ) from None


def _confirmed(arguments: argparse.Namespace, stack: Stack) -> list[str]:
    """What is asked for, word by word. Where nobody has confirmed it yet, the plan is shown, and somebody asked."""
    asked = _restored(arguments)
    if not asked.yes and not asked.to_database:
        name = _holder(arguments, "look at what stackctl restore would do")
        with lock.hold(stack.paths, name):
            chosen = restore.look(stack, asked).id
        answer = stack.machine.answer(f"Type {chosen} to have what is live give way to it: ")
        asked = asked._replace(backup=chosen, yes=answer)
        check_answer(asked, chosen)
    return asked.words


def _restored(arguments: argparse.Namespace) -> Request:
    if not arguments.backup:
        raise RefusedError("which backup? stackctl restore ID|latest; stackctl backups lists them")
    return Request(
        arguments.backup,
        arguments.from_offsite,
        arguments.to_database,
        arguments.yes,
        not arguments.no_safety,
        arguments.snapshot,
    )


def _amcheck(stack: Stack) -> None:
    if not stack.config.data:
        return
    # It may take hours. A backup would end it, and a restore take its database away: those wait, or are refused. A
    # release needn't: its own dump ends a look (Postgres.end_dumps) before a migration could wait for a table of it.
    paths = stack.paths
    name = f"the weekly look at PostgreSQL's files (systemctl stop {paths.amcheck_service} ends it)"
    alone = lock.exclusive(paths.backup_lock, name, NIGHTLY_PATIENCE)
    upkeep.amcheck(paths, stack.machine, Postgres(stack.docker, paths, stack.config.data), alone)


def _backup(stack: Stack, arguments: argparse.Namespace, name: str) -> None:
    patience = NIGHTLY_PATIENCE if arguments.nightly else lock.PATIENCE
    site = lock.hold(stack.paths, name, arguments.under, patience)
    with lock.exclusive(stack.paths.backup_lock, name, patience):
        create.backup(stack, "nightly" if arguments.nightly else "asked", site)


def _offsite(stack: Stack, *, as_json: bool) -> None:
    found, there = offsite.look(stack), offsite.everything(stack)
    repository = offsite.load(stack.paths).repository
    if as_json:
        powers = asdict(found) if found else None
        shown = [asdict(one.manifest) | {"doubts": one.doubts} for one in there]
        document = {"repository": repository, "powers": powers, "backups": shown}
        print(json.dumps(document, indent=2), file=stack.journal.out)
        return
    lines = [repository, f"{found or 'isolated: only read here'}"]
    lines = [*map(printable, lines), *(listing.stored_table(there) or ["no backup yet"])]
    print("\n".join(lines), file=stack.journal.out)


def _maintenance(stack: Stack, mode: str) -> None:
    if mode == "on":
        durable.write(stack.paths.maintenance, b"", 0o644)
    elif half := unfinished_restore.load(stack.paths):
        raise RefusedError(half.remedy)
    else:
        stack.paths.maintenance.unlink(missing_ok=True)
    stack.journal.tell("maintenance", "progress", f"{mode}: from the next request on")


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
    print(printable(f"stackctl: {message}"), file=sys.stderr)
    return RefusedError.code
