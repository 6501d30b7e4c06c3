"""
Who may change the droplet now. flock(2), so that no lock outlives its holder.

Two files, for two reasons:
- `lock` is an errand's: a converge or a release holds it, and a second operator is refused by name. A converge calls
  `stackctl --under ID`, which is admitted by the id in the file of a lock that is held.
- `work` is held by stackctl while it moves containers, whoever admitted it. A release whose converge lost its connection
  keeps others out by it; and boot waits for it alone: a converge that starts APP.service would otherwise wait for itself.
halt takes neither: a shutdown asks nobody, and what it interrupts is mended by boot and by the next release.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from .errors import LockedError
from .paths import Paths

# Others only look, for less than a moment (see `reader`): whoever is refused was refused for longer than that.
PATIENCE = 1.0


@dataclass(frozen=True)
class Holder:
    """The content of a held lock, one JSON line."""

    holder: str
    since: str
    id: str


@contextmanager
def hold(paths: Paths, holder: str, under: str | None = None) -> Iterator[None]:
    """Both locks, or LockedError naming who has them. `under` is the id of the errand that this one is part of."""
    me = Holder(holder, datetime.now(UTC).isoformat(timespec="seconds"), under or uuid.uuid4().hex)
    with ExitStack() as stack:
        if under is None:
            lock = stack.enter_context(_flock(paths.lock, PATIENCE))
        else:
            _check_admission(paths.lock, under)
        work = stack.enter_context(_flock(paths.work, PATIENCE))
        stack.enter_context(_signed(work, me))
        if under is None:
            stack.enter_context(_signed(lock, me))
        yield


@contextmanager
def hold_work(paths: Paths, holder: str, patience: float) -> Iterator[None]:
    """boot's: wait for a release that is under way, don't mind a converge."""
    me = Holder(holder, datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex)
    with _flock(paths.work, patience) as work, _signed(work, me):
        yield


def reader(path: Path) -> Holder | None:
    """Who holds the lock now, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _content(path)
    else:
        return None
    finally:
        os.close(descriptor)


@contextmanager
def _flock(path: Path, patience: float) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not _try(descriptor):
            if time.monotonic() > deadline:
                other = _content(path)
                raise LockedError(
                    f"{other.holder} has been at work since {other.since}: wait for it, then run this again"
                )
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _signed(descriptor: int, me: Holder) -> Iterator[None]:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(me)).encode() + b"\n", 0)
    yield
    os.ftruncate(descriptor, 0)


def _check_admission(path: Path, under: str) -> None:
    current = reader(path)
    if current is None:
        raise LockedError("the converge that called this holds the lock no longer: run it again")
    if current.id != under:
        raise LockedError(f"{current.holder} has been at work since {current.since}: wait, then run this again")


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        # It was taken this instant, and not signed yet.
        return Holder("another program", "just now", "")
