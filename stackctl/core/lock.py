"""Locks that decide who may change the droplet.

The locks use flock(2), so that no lock outlives its holder. There are two locks: - A converge or a verb holds `lock`
from start to end. Every other run is refused, with the holder's name in the message. A converge calls its verbs with
`--lock-id ID`. A verb with this option is admitted if the lock file contains the ID.
- stackctl holds `work` while stackctl moves containers. The lock `work` keeps other runs out if a converge loses its
  connection while its release continues. `boot` waits only for `work`. If `boot` waited for `lock`, a converge that
  starts APP.service would wait for itself.

The verb `halt` takes neither lock, because a shutdown cannot wait. If `halt` interrupts a release, `boot` or the next
release recovers.
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

# `holder_of` takes a free lock for a moment. Therefore a run that asks for the lock waits for at least this time.
LOCK_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, which is stored in the lock file as one line of JSON."""

    holder: str
    since: str
    id: str

    @classmethod
    def new(cls, name: str) -> "Holder":
        return cls(name, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex)

    @property
    def refusal(self) -> LockedError:
        return LockedError(
            f"{self.holder} has held the lock since {self.since}. Nothing was changed",
            next_step="wait until that run has ended, then run the same command again",
        )


@contextmanager
def hold(paths: Paths, name: str, lock_id: str | None = None, timeout: float | None = None) -> Iterator[None]:
    """Hold both locks, or raise LockedError with the name of the holder.

    If a converge already holds the lock `lock`, `lock_id` is the ID in the lock file. `timeout` is the time to wait for
    each lock, in seconds.
    """
    timeout = LOCK_TIMEOUT_S if timeout is None else timeout
    with ExitStack() as stack:
        if lock_id is None:
            # Write the holder's name into this lock before waiting for the second lock, so that a run refused meanwhile
            # can show the name.
            stack.enter_context(exclusive(paths.lock, name, timeout))
        else:
            _check_admission(paths.lock, lock_id)
        stack.enter_context(exclusive(paths.work, name, timeout))
        yield


@contextmanager
def exclusive(path: Path, name: str, timeout: float) -> Iterator[None]:
    """Hold one lock, after a wait of at most `timeout` seconds."""
    with _flock(path, timeout) as descriptor:
        _sign(descriptor, Holder.new(name))
        yield


def holder_of(path: Path) -> Holder | None:
    """Return the holder of a lock, or None if the lock is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _try(descriptor, fcntl.LOCK_SH) else _content(path)
    finally:
        os.close(descriptor)


@contextmanager
def _flock(path: Path, timeout: float) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise _content(path).refusal
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def _sign(descriptor: int, me: Holder) -> None:
    """Overwrite the previous holder's name in place, which works even on a full disk.

    If the write fails, empty the file.
    """
    line = records.dumps(me)
    try:
        os.pwrite(descriptor, line, 0)
        os.ftruncate(descriptor, len(line))
    except OSError:
        os.ftruncate(descriptor, 0)


def _check_admission(path: Path, lock_id: str) -> None:
    current = holder_of(path)
    if current is None:
        raise LockedError(
            "the converge that started this run no longer holds the lock", next_step="run the converge again"
        )
    if current.id != lock_id:
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
        # The holder has not written its name yet, or could not write the name because the disk was full.
        return Holder("another program", "a moment ago", "")
