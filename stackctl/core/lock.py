"""Locks that decide who may change the droplet. They use flock(2), so that no lock outlives its holder.

There are two locks, for two reasons:

- `lock` is held by a converge or a verb from start to end. Anyone else is refused, with the holder's name in
  the message. A verb that a converge calls with `--lock-id ID` is admitted if the file of the held lock has this ID.
- `work` is held while stackctl moves containers. This lock keeps other runs out when a release outlives the
  connection of its converge. boot waits only for this lock. If boot waited for `lock`, a converge that starts
  APP.service would wait for itself.

halt takes neither lock, because a shutdown cannot wait. boot and the next release repair what halt interrupts.
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

# `holder_of` takes a free lock for a moment. A run that asks for the lock in that moment must not fail.
LOCK_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Holder:
    """The content of a held lock file, one line of JSON."""

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

    `lock_id` is the ID of the lock that the caller holds. `timeout` is how long to wait for each lock, in seconds.
    """
    timeout = LOCK_TIMEOUT_S if timeout is None else timeout
    with ExitStack() as stack:
        if lock_id is None:
            # Write the name before the wait for the other lock, for the message to a run that is refused meanwhile.
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
    """Overwrite the previous holder, because that works even on a full disk. If writing fails, empty the file."""
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
        # The holder has not written its name yet, or could not write because the disk was full.
        return Holder("another program", "a moment ago", "")
