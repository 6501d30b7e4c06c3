"""What happens, told once: a line in history.jsonl and a line on the terminal, from the same event."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from .environment import mask
from .machine import Machine


@dataclass
class Journal:
    """One verb's voice. Everything said is cleared of `secrets`."""

    path: Path | None
    """history.jsonl, or None for a verb that only looks."""
    op: str
    machine: Machine
    out: TextIO
    secrets: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._began = self.machine.monotonic()

    def tell(self, step: str, state: str, message: str = "", ms: int | None = None) -> None:
        """`state` is start, progress, done, failed or undone; `ms` how long it took, where that is known."""
        event = {
            "ts": self.machine.now().isoformat(timespec="milliseconds"),
            "op": self.op,
            "step": step,
            "state": state,
            "ms": ms,
            "message": mask(message, self.secrets),
        }
        self._print(readable(event, self.machine.monotonic() - self._began))
        try:
            if self.path:
                append(self.path, event)
        except OSError as error:
            # A full disk must not keep a release from being undone.
            self._print(f"{self.path}: {error}")

    def step(self, name: str, act: Callable[[], str], what: str = "") -> None:
        """Tell that `act` begins, then what it has to say at its end and how long it took."""
        began = self.machine.monotonic()
        self.tell(name, "start", what)
        try:
            message = act()
        except BaseException as error:
            self.tell(name, "failed", str(error) or type(error).__name__, self._ms_since(began))
            raise
        self.tell(name, "done", message, self._ms_since(began))

    def show_log(self, tail: str) -> None:
        """The last lines of a container's log: for the terminal, not for history."""
        for line in mask(tail, self.secrets).splitlines():
            self._print(f"    | {line}")

    def _ms_since(self, began: float) -> int:
        return round((self.machine.monotonic() - began) * 1000)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self.out, flush=True)
        except OSError:
            # The terminal is gone, the work isn't: a release whose connection dropped goes on to its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


def readable(event: Mapping[str, Any], elapsed: float) -> str:
    """An event as a line for people: seconds since the verb began, step, what happened, how long it took."""
    took = f"({event['ms'] / 1000:.1f} s)" if event["ms"] is not None else ""
    text = " ".join(word for word in (event["state"], event["message"], took) if word)
    return f"{elapsed:6.1f} s  {event['step']:<10} {text}"


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line. A line torn by a crash is closed first, so that it can spoil no other."""
    line = json.dumps(event).encode() + b"\n"
    with path.open("ab+", buffering=0) as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            line = b"\n" + line
        file.write(line)
