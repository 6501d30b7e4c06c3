"""
Who may change the droplet now. flock(2), so that no lock outlives its holder.

Two files, for two reasons:
- `lock` is an errand's: a converge or a release holds it, and a second operator is refused by name. A converge calls
  `stackctl --under ID`, which is admitted by the id in the file of a lock that is held.
- `work` is held by stackctl while it moves containers, whoever admitted it. A release whose converge lost its
  connection keeps others out by it; and boot waits for it alone: a converge that starts APP.service would otherwise
  wait for itself.
halt takes neither: a shutdown asks nobody, and what it interrupts is mended by boot and by the next release.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stackctl.core import records
from stackctl.core.errors import LockedError
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError

# `holder_of` looks for less than a moment: whoever is refused was kept out for longer than that.
PATIENCE = 1.0


@dataclass(frozen=True)
class Holder:
    """The content of a held lock, one JSON line."""

    holder: str
    since: str
    id: str

    @classmethod
    def new(cls, name: str) -> "Holder":
        return cls(name, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex)

    @property
    def refusal(self) -> LockedError:
        return LockedError(f"{self.holder} has been at work since {self.since}: wait for the end, then run this again")


@contextmanager
def hold(paths: Paths, name: str, under: str | None = None, patience: float | None = None) -> Iterator[None]:
    """Both locks, or LockedError naming who has them. `under` is the id of the errand that this one is part of.

    `patience` is how long it waits for each, in seconds.
    """
    patience = PATIENCE if patience is None else patience
    with ExitStack() as stack:
        if under is None:
            # Signed before the wait for the other: whoever is refused meanwhile hears of us, and of nobody who is gone.
            stack.enter_context(exclusive(paths.lock, name, patience))
        else:
            _check_admission(paths.lock, under)
        stack.enter_context(exclusive(paths.work, name, patience))
        yield


@contextmanager
def exclusive(path: Path, name: str, patience: float) -> Iterator[None]:
    """One lock alone, waiting for it up to `patience` seconds."""
    with _flock(path, patience) as descriptor:
        _sign(descriptor, Holder.new(name))
        yield


def holder_of(path: Path) -> Holder | None:
    """Who holds this lock now, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _content(path)
    finally:
        os.close(descriptor)


@contextmanager
def _flock(path: Path, patience: float) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _content(path).refusal
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def _sign(descriptor: int, me: Holder) -> None:
    """In the place of who was there before: a full disk takes that, and where it doesn't, the lock is held unsigned."""
    line = records.dumps(me)
    try:
        os.pwrite(descriptor, line, 0)
        os.ftruncate(descriptor, len(line))
    except OSError:
        os.ftruncate(descriptor, 0)


def _check_admission(path: Path, under: str) -> None:
    current = holder_of(path)
    if current is None:
        raise LockedError("the converge that called this holds the lock no longer: run it again")
    if current.id != under:
        raise current.refusal


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(path: Path) -> Holder:
    try:
        return records.loads(Holder, path.read_bytes())
    except RecordError:
        # It was taken this instant, and not signed yet; or the disk is full.
        return Holder("another program", "just now", "")
