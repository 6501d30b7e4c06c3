"""How much disk space an action needs, and the check that it is there. A full disk stops PostgreSQL."""

from collections.abc import Mapping
from pathlib import Path

from stackctl.core.errors import RefusedError, StackError

SPARE = 256 << 20
"""Bytes that stay free, whatever is written: a dump, a download, a restored copy."""
IMAGE = 512 << 20
"""Bytes that Docker needs for a new image, at least."""
SERVER = 256 << 20
"""Bytes that a throwaway PostgreSQL needs besides the database."""
WAL = 1 << 30
"""PostgreSQL keeps at most this many bytes of write-ahead log during heavy writes (max_wal_size)."""


def of_backup(database: int, *, verified: bool) -> int:
    """Return the bytes that a dump may take, and a restored copy of the database if the backup is verified.

    A dump is smaller than its database: it is compressed, and has no indexes.
    """
    return database + SPARE + (database + SERVER if verified else 0)


def of_restore(database: int) -> int:
    """Return the bytes that a second database takes while it is loaded."""
    return database + min(database, WAL) + SPARE


def usable(free: int) -> int:
    """Return how many of the free bytes may be used."""
    return max(0, free - SPARE)


def check(directory: Path, free: int, needs: Mapping[str, int], error: type[StackError] = RefusedError) -> None:
    """Raise `error` unless all needs, each a noun with its bytes, fit into the free bytes together."""
    if free < sum(needs.values()):
        what = " and ".join(f"{name} may need {size >> 20}" for name, size in needs.items() if size)
        raise error(f"{directory} has {free >> 20} MiB left, {what}", next_step="make room there")


def full(file: Path, room: int) -> str:
    """Return the message for a file that grew to all the room there was."""
    return f"no space left on the disk: {file} needs more than the {room >> 20} MiB that may be used"
