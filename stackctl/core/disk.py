"""How much disk space an action needs, and the check that it is there. A full disk stops PostgreSQL."""

from pathlib import Path

from stackctl.core.errors import RefusedError, StackError

SPARE = 256 << 20
"""Bytes that stay free, whatever is written: a dump, a download, a restored copy."""


def usable(free: int) -> int:
    """Return how many of the free bytes may be used."""
    return max(0, free - SPARE)


def full(file: Path, room: int) -> str:
    """Return the message for a file that grew to all the room there was."""
    return (
        f"no space left on the disk: {file} would take more than the {room >> 20} MiB that may be used: make room there"
    )


def check(directory: Path, free: int, needed: int, what: str, error: type[StackError] = RefusedError) -> None:
    """Raise `error` unless so many bytes are free. `what` begins the second half, such as "a restore needs"."""
    if free < needed:
        raise error(f"{directory} has {free >> 20} MiB left, {what} {needed >> 20}: make room there")
