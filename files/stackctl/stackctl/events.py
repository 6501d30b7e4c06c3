"""What happens, told once: a line in history.jsonl and a line on the terminal, from the same event."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .environment import mask
from .machine import Machine


@dataclass
class Journal:
    """One verb's voice. `secrets` are the values that must never be seen; everything said passes them."""

    path: Path
    op: str
    machine: Machine
    out: TextIO = sys.stdout
    secrets: Mapping[str, str] = field(default_factory=dict)

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
            "message": self.masked(message),
        }
        self._print(readable(event, self.machine.monotonic() - self._began))
        try:
            append(self.path, event)
        except OSError as error:
            # A full disk must not keep a release from being undone.
            self._print(f"{self.path}: {error}")

    @contextmanager
    def step(self, name: str, what: str = "") -> Iterator["Told"]:
        """Tell that the body begins, how it ends and how long it took; it may leave a message for the end."""
        began = self.machine.monotonic()
        told = Told()
        self.tell(name, "start", what)
        try:
            yield told
        except BaseException as error:
            self.tell(name, "failed", str(error) or type(error).__name__, self._ms_since(began))
            raise
        self.tell(name, "done", told.message, self._ms_since(began))

    def show_log(self, tail: str) -> None:
        """The last lines of a container's log: for the terminal, not for history."""
        for line in self.masked(tail).splitlines():
            self._print(f"    | {line}")

    def masked(self, text: str) -> str:
        return mask(text, self.secrets)

    def _ms_since(self, began: float) -> int:
        return round((self.machine.monotonic() - began) * 1000)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self.out, flush=True)
        except OSError:
            # The terminal is gone, the work isn't: a release whose connection dropped goes on to its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())


@dataclass
class Told:
    """What a step has to say when it is done."""

    message: str = ""


def readable(event: Mapping[str, Any], elapsed: float) -> str:
    """An event as a line for people: seconds since the verb began, step, what happened, how long it took."""
    took = f"({event['ms'] / 1000:.1f} s)" if event["ms"] is not None else ""
    text = " ".join(word for word in (event["state"], event["message"], took) if word)
    return f"{elapsed:6.1f} s  {event['step']:<10} {text}"


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line. A line torn by a crash is closed first, so that it can spoil no other."""
    line = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) and not _ends_a_line(file.fileno()):
            line = b"\n" + line
        file.write(line)


def _ends_a_line(descriptor: int) -> bool:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) == b"\n"
