"""A release or a restore in a unit of its own: it goes on to its end when the connection drops; its caller follows.

The follower reads history.jsonl, as `release --follow` does later, and ends with the run's own exit code; and what a
full disk didn't take of it.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from stackctl.cli import verbs
from stackctl.cli.call import Call
from stackctl.core import lock
from stackctl.core.config import Config
from stackctl.core.errors import FailedError, LockedError, PersonNeededError, RefusedError
from stackctl.core.events import parsed, readable
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.program import TIMED_OUT

PROGRAM = "/usr/local/bin/stackctl"
VERBS = tuple(verb.name for verb in verbs.VERBS if verb.background)
LOOK_SECONDS = 0.1
LOOKS_BEFORE_ASKING = 20
UNDO_SECONDS = 180  # besides the app's own graces

Event = dict[str, Any]


def run(call: Call, words: Callable[[Call], Sequence[str]]) -> int:
    """Start a release, a rollback or a restore and follow it, or follow the one that there is."""
    arguments, paths, machine = call.arguments, call.paths, call.machine
    show = shown(call.journal.out, as_json=arguments.json)
    if getattr(arguments, "follow", False):
        with _going_on(paths):
            return follow(paths, machine, last_run(paths), show)
    asked = words(call)
    under = ["--under", arguments.under] if arguments.under else []
    as_run = ["--run", call.journal.run, "--by", arguments.by, f"--key={arguments.key}", *under, arguments.verb]
    with _going_on(paths):
        start(paths, call.stack.config, machine, [*as_run, *asked])
        return follow(paths, machine, call.journal.run, show)


@contextmanager
def _going_on(paths: Paths) -> Iterator[None]:
    """Whoever stops following ends nothing by it, and is told so."""
    try:
        yield
    except KeyboardInterrupt:
        raise PersonNeededError(
            "if it was begun, it goes on by itself: stackctl release --follow shows it, "
            f"systemctl stop {paths.units.release} ends and undoes it"
        ) from None


def start(paths: Paths, config: Config, machine: Machine, arguments: Sequence[str]) -> None:
    """Have systemd run stackctl with these arguments. LockedError when something is under way."""
    if holder := lock.holder_of(paths.work):
        raise holder.refusal
    properties = {
        # SIGTERM is for stackctl alone, which ends its children and undoes what it did.
        "KillMode": "mixed",
        "TimeoutStopSec": str(UNDO_SECONDS + config.stop_grace + 2 * config.worker_grace),
        # At a shutdown it is stopped, and has undone its work, before the stack and Docker are.
        "After": f"docker.service {paths.units.app}",
    }
    options = [f"--property={name}={value}" for name, value in properties.items()]
    unit = ["--quiet", "--collect", "--service-type=exec", f"--unit={paths.units.release}"]
    description = f"--description=A release or a restore of {paths.app}"
    ran = machine.run(["systemd-run", *unit, description, *options, PROGRAM, *arguments])
    if not ran.code:
        return
    if ran.code == TIMED_OUT:
        # Behind a boot, say. It must not start later, when it was reported as failed.
        machine.run(["systemctl", "stop", paths.units.release])
    if holder := lock.holder_of(paths.work) or lock.holder_of(paths.lock):
        raise holder.refusal
    if "already loaded" in ran.reason:
        # Its stackctl is about to take the lock.
        raise LockedError("another release or restore has just begun: wait for the end, then run this again")
    raise FailedError(f"systemd doesn't start it: {ran.reason}")


def last_run(paths: Paths) -> str:
    """The newest of them, under way or over."""
    lines = [line for path in (paths.history, paths.unwritten) for line in _Tail(path).lines()[1]]
    events = filter(None, map(parsed, lines))
    runs = [(event["ts"], event["run"]) for event in events if event["op"] in VERBS and "by" in event]
    if not runs:
        raise RefusedError("there was none yet: stackctl release TAG")
    return str(sorted(runs, key=itemgetter(0))[-1][1])


def follow(paths: Paths, machine: Machine, run: str, show: Callable[[Event], None]) -> int:
    """Show a run's events as they come; its exit code. PersonNeededError when it ended without a word."""
    tails, quiet, what = [_Tail(path) for path in (paths.history, paths.unwritten)], 0, "the same command"
    while True:
        ended = quiet > LOOKS_BEFORE_ASKING and _over(paths, machine)
        fresh = [event for tail in tails for event in tail.fresh(run)]
        for event in fresh:
            show(event)
            if event["op"] in VERBS and event.get("tag"):
                what = f"stackctl {event['op']} {event['tag']}"
            if "code" in event:
                return int(event["code"])
        if ended:
            raise PersonNeededError(
                f"it ended without a word (killed? journalctl -u {paths.units.release}): {what} finishes the job"
            )
        quiet = 0 if fresh or ended else quiet + 1
        machine.sleep(LOOK_SECONDS)


def shown(out: TextIO, *, as_json: bool) -> Callable[[Event], None]:
    """Prints events: for machines as they are, for people with the seconds since the first."""
    began: list[datetime] = []

    def show(event: Event) -> None:
        at = datetime.fromisoformat(event["ts"])
        began.append(at)
        elapsed = (at - began[0]).total_seconds()
        print(json.dumps(event) if as_json else readable(event, elapsed), file=out, flush=True)

    return show


class _Tail:
    """What is added to a file, which may be replaced by a shorter one meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset, self._told = path, 0, 0, 0

    def fresh(self, run: str) -> list[Event]:
        """A run's events since."""
        anew, lines = self.lines()
        heard = [event for event in map(parsed, lines) if event and event["run"] == run]
        # A file that was trimmed meanwhile is read from its beginning.
        fresh = heard[self._told :] if anew else heard
        self._told = len(heard) if anew else self._told + len(heard)
        return fresh

    def lines(self) -> tuple[bool, list[bytes]]:
        """Whether the file is another one than before, and its whole lines since."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                anew = inode != self._inode
                if anew:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False, []
        self._offset += len(whole) + len(newline)
        return anew, whole.splitlines()


def _over(paths: Paths, machine: Machine) -> bool:
    """One that is being stopped is `deactivating`, and undoes its work."""
    asked = machine.run(["systemctl", "show", "--property=ActiveState", "--value", paths.units.release])
    return asked.stdout.strip() in {"inactive", "failed"}
