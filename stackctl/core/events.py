"""Events of a run. Each event becomes a line in history.jsonl and a line on the terminal.

A run is one call of a verb that changes something. The first event of a run has the verb as its step, and contains who
started the run and the run's tag. The last event has the exit code.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from stackctl.core import durable
from stackctl.core.machine import Machine
from stackctl.core.printable import printable
from stackctl.core.redact import mask

MOST_LINES = 20_000
KEPT_LINES = 10_000


@dataclass
class RunLog:
    """The log of one run. Every line is masked, so that none of the `secrets` appears."""

    path: Path | None
    """history.jsonl, or None for a verb that only reads."""
    op: str
    machine: Machine
    out: TextIO
    secrets: Sequence[str] = ()
    run: str = ""
    spare: Path | None = None
    """The file for events while `path` cannot be written. `--follow` needs the end of the run even on a full disk."""
    failure: str = ""
    """Message of the last step that failed."""
    outcome: str = ""
    """Message of the run's last event, unless the run fails. Most runs need none."""

    def __post_init__(self) -> None:
        self._began = self.machine.monotonic()

    def begin(self, by: str, tag: str = "", key: str = "", request: str | None = None) -> None:
        """Record the first event of the run.

        Several people may share one login, so `key` is the name of the SSH key. `request` is the ID that the caller
        chose for this run.
        """
        told = {"by": by, **({"key": key} if key else {}), "tag": tag, **({"request": request} if request else {})}
        self._record(self.op, "start", f"{tag} by {by}".strip(), None, told)

    def end(self, code: int, message: str = "") -> None:
        """Record the last event of the run, with its exit code."""
        state = "failed" if code else "done"
        self._record(self.op, state, message or self.outcome, self._ms_since(self._began), {"code": code})

    def emit(self, step: str, state: str, message: str = "", ms: int | None = None) -> None:
        """Record an event. `state` is start, progress, log, done, failed or undone. `ms` is the step's duration."""
        self._record(step, state, message, ms, {})

    def step(self, name: str, act: Callable[[], str], description: str = "") -> None:
        """Run `act` as a step. Record the start of the step, and later the duration and the message of `act`."""
        began = self.machine.monotonic()
        self.emit(name, "start", description)
        try:
            message = act()
        except BaseException as error:
            self.failure = str(error) or type(error).__name__
            self.emit(name, "failed", self.failure, self._ms_since(began))
            raise
        self.emit(name, "done", message, self._ms_since(began))

    def emit_tail(self, step: str, tail: str) -> None:
        """Record the last lines of a container's log."""
        for line in mask(tail, self.secrets).splitlines():
            self.emit(step, "log", line)

    def _record(self, step: str, state: str, message: str, ms: int | None, more: Mapping[str, object]) -> None:
        event = {
            "ts": self.machine.now().isoformat(timespec="milliseconds"),
            "run": self.run,
            "op": self.op,
            "step": step,
            "state": state,
            "ms": ms,
            "message": mask(message, self.secrets),
            **more,
        }
        self._print(readable(event, self.machine.monotonic() - self._began))
        for path in filter(None, (self.path, self.spare)):
            try:
                append(path, event)
                break
            except OSError as error:
                # Go on, because a full disk must not prevent the undo of a release.
                self._print(printable(f"{path}: {error}"))

    def _ms_since(self, began: float) -> int:
        return round((self.machine.monotonic() - began) * 1000)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self.out, flush=True)
        except OSError:
            # The run continues, although the terminal is gone.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


def readable(event: Mapping[str, Any], elapsed: float) -> str:
    """Format an event as a line for people: seconds since the start of the run, step, state, message, duration."""
    if event["state"] == "log":
        return printable(f"    | {event['message']}")
    took = f"({event['ms'] / 1000:.1f} s)" if event["ms"] is not None else ""
    text = " ".join(word for word in (event["state"], event["message"], took) if word)
    return printable(f"{elapsed:6.1f} s  {event['step']:<10} {text}")


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Append an event as one line. If a crash cut off the previous line, first add the missing line end."""
    line = json.dumps(event).encode() + b"\n"
    # Only root may read the file, because the file contains lines of container logs.
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab+", buffering=0) as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            line = b"\n" + line
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, "the line was cut off")


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line of the history, or None if a crash cut the line off."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"run", "op", "step", "state"} <= event.keys() else None


def trim(path: Path) -> None:
    """Remove the oldest lines of the file once the file has more than MOST_LINES lines."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        if len(lines) > MOST_LINES:
            durable.write(path, b"".join(lines[-KEPT_LINES:]))
    except OSError:
        return  # the file does not exist yet, or the disk is full, which `append` will report
