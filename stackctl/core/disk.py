"""Computes the disk space that an action needs, and checks that this space is free.

If the disk is full, PostgreSQL stops.
"""

from collections.abc import Mapping
from pathlib import Path

from stackctl.core.errors import RefusedError, StackError

SPARE = 256 << 20
"""Bytes that every dump, download and restored copy leaves free."""
IMAGE = 512 << 20
"""Bytes that Docker needs for a new image, at least."""
SERVER = 256 << 20
"""Bytes that a throwaway PostgreSQL needs in addition to the database."""
WAL = 1 << 30
"""PostgreSQL keeps at most this many bytes of write-ahead log during heavy writes (max_wal_size)."""


def of_backup(database: int, *, verified: bool) -> int:
    """Return the bytes that a backup may need. A verified backup also needs a restored copy of the database.

    A dump is smaller than its database, because a dump is compressed and has no indexes.
    """
    return database + SPARE + (database + SERVER if verified else 0)


def of_restore(database: int) -> int:
    """Return the bytes that loading a dump into a second database may need."""
    return database + min(database, WAL) + SPARE


def usable(free: int) -> int:
    """Return how many of the free bytes stackctl may use."""
    return max(0, free - SPARE)


def check(directory: Path, free: int, needs: Mapping[str, int], error: type[StackError] = RefusedError) -> None:
    """Raise `error` unless the free bytes suffice for all needs together.

    `needs` maps each purpose to a number of bytes.
    """
    if free < sum(needs.values()):
        what = " and ".join(f"{name} may need {size >> 20} MiB" for name, size in needs.items() if size)
        raise error(f"{directory} has {free >> 20} MiB left, but {what}", next_step="make room there")


def full(file: Path, room: int) -> str:
    """Return the message for a file that has reached its limit of `room` bytes."""
    return f"no space left on the disk: {file} needs more than the {room >> 20} MiB that may be used"
