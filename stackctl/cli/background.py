"""Runs a release, a rollback or a restore in a separate systemd unit, and shows the run's events on the terminal.

The run continues if the SSH connection drops. The follower reads history.jsonl, and a second file that receives the
events while the disk is full. The follower exits with the exit code of the run. `release --follow` follows a run that
was started earlier.
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
UNDO_SECONDS = 180  # on top of the grace periods of the app's containers

Event = dict[str, Any]


def run(call: Call, words: Callable[[Call], Sequence[str]]) -> int:
    """Start a run and follow the run's events. With --follow, do not start a run, but follow an existing run.

    A request with an ID starts at most one run. A second request with the same ID follows that run.
    """
    arguments, paths, machine = call.arguments, call.paths, call.machine
    show = shown(call.log.out, as_json=arguments.json)
    request = getattr(arguments, "id", None)
    if getattr(arguments, "follow", False):
        with _detached(paths):
            return follow(paths, machine, run_of(paths, request) if request else last_run(paths), show)
    asked = words(call)
    within = ["--lock-id", arguments.lock_id] if arguments.lock_id else []
    as_run = ["--run", call.log.run, "--by", arguments.by, f"--key={arguments.key}", *within, arguments.verb]
    with _detached(paths):
        if request and (earlier := _started_by(paths, request)):
            return follow(paths, machine, earlier, show)
        start(paths, call.stack.config, machine, [*as_run, *asked])
        return follow(paths, machine, call.log.run, show)


@contextmanager
def _detached(paths: Paths) -> Iterator[None]:
    """If the user interrupts the follower, explain that the run continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise PersonNeededError(
            "you stopped following, but a run that has started continues by itself",
            next_step="stackctl release --follow to follow the run again, or "
            f"systemctl stop {paths.units.release} to end and undo the run",
        ) from None


def start(paths: Paths, config: Config, machine: Machine, arguments: Sequence[str]) -> None:
    """Start stackctl with these arguments in a systemd unit. Raises LockedError if another run is in progress."""
    if holder := lock.holder_of(paths.work):
        raise holder.refusal
    properties = {
        # SIGTERM goes to stackctl alone, which ends its children and undoes its work.
        "KillMode": "mixed",
        "TimeoutStopSec": str(UNDO_SECONDS + config.stop_grace + 2 * config.worker_grace),
        # At a shutdown, systemd stops the run first, so that the run can undo its work before the app and Docker stop.
        "After": f"docker.service {paths.units.app}",
    }
    options = [f"--property={name}={value}" for name, value in properties.items()]
    unit = ["--quiet", "--collect", "--service-type=exec", f"--unit={paths.units.release}"]
    description = f"--description=A release or a restore of {paths.app}"
    ran = machine.run(["systemd-run", *unit, description, *options, PROGRAM, *arguments])
    if not ran.code:
        return
    if ran.code == TIMED_OUT:
        # The unit may still be waiting for the boot to finish. Stop the unit, because a run that was reported as failed
        # must not start later.
        machine.run(["systemctl", "stop", paths.units.release])
    if holder := lock.holder_of(paths.work) or lock.holder_of(paths.lock):
        raise holder.refusal
    if "already loaded" in ran.reason:
        # The unit of another run exists, but the other run has not taken the lock yet.
        raise LockedError(
            "another release or restore has just started",
            next_step="wait until it has finished, then run the same command again",
        )
    raise FailedError(f"systemd cannot start the run: {ran.reason}. Nothing was changed")


def last_run(paths: Paths) -> str:
    """Return the ID of the newest release, rollback or restore, in progress or finished."""
    runs = [event for event in _first_events(paths) if event["op"] in VERBS]
    if not runs:
        raise RefusedError("no release or restore has run yet", next_step="stackctl release TAG")
    return str(sorted(runs, key=itemgetter("ts"))[-1]["run"])


def run_of(paths: Paths, request: str) -> str:
    """Return the ID of the run that the given request has started."""
    if not (run := _started_by(paths, request)):
        raise RefusedError(
            f"no run has the ID {request}, so that request started nothing", next_step="send the request again"
        )
    return run


def _started_by(paths: Paths, request: str) -> str | None:
    return next((str(event["run"]) for event in _first_events(paths) if event.get("request") == request), None)


def _first_events(paths: Paths) -> list[Event]:
    """Return the first event of every run, in progress or finished."""
    lines = [line for path in (paths.history, paths.unwritten) for line in _Tail(path).lines()[1]]
    return [event for event in filter(None, map(parsed, lines)) if "by" in event]


def follow(paths: Paths, machine: Machine, run: str, show: Callable[[Event], None]) -> int:
    """Show the events of a run as they come, and return the run's exit code.

    Raises PersonNeededError if the run was killed.
    """
    tails, quiet, what = [_Tail(path) for path in (paths.history, paths.unwritten)], 0, "run the same command again"
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
                f"the run ended without a result, perhaps because it was killed (journalctl -u {paths.units.release})",
                next_step=f"{what}, which finishes the run",
            )
        quiet = 0 if fresh or ended else quiet + 1
        machine.sleep(LOOK_SECONDS)


def shown(out: TextIO, *, as_json: bool) -> Callable[[Event], None]:
    """Return a function that prints an event, either as JSON, or for people with the seconds since the first event."""
    began: list[datetime] = []

    def show(event: Event) -> None:
        at = datetime.fromisoformat(event["ts"])
        began.append(at)
        elapsed = (at - began[0]).total_seconds()
        print(json.dumps(event) if as_json else readable(event, elapsed), file=out, flush=True)

    return show


class _Tail:
    """A reader of a file's new lines, which notices if the file is replaced by a shorter file."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset, self._told = path, 0, 0, 0

    def fresh(self, run: str) -> list[Event]:
        """Return the events of a run that were written since the last call."""
        replaced, lines = self.lines()
        heard = [event for event in map(parsed, lines) if event and event["run"] == run]
        # A trimmed file is read from the start, so skip the events that were already returned.
        fresh = heard[self._told :] if replaced else heard
        self._told = len(heard) if replaced else self._told + len(heard)
        return fresh

    def lines(self) -> tuple[bool, list[bytes]]:
        """Return whether the file was replaced, and the complete lines that were written since the last call."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                replaced = inode != self._inode
                if replaced:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False, []
        self._offset += len(whole) + len(newline)
        return replaced, whole.splitlines()


def _over(paths: Paths, machine: Machine) -> bool:
    """Return whether the run's unit has ended. A stopped run's unit is `deactivating` until the undo has ended."""
    asked = machine.run(["systemctl", "show", "--property=ActiveState", "--value", paths.units.release])
    return asked.stdout.strip() in {"inactive", "failed"}
