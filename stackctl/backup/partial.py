"""Directories ID.partial hold backups that are being made, fetched or removed.

A killed run leaves its directory behind.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import verify
from stackctl.backup.manifest import UNFINISHED
from stackctl.core import openat


@contextmanager
def directory(whole: Path) -> Iterator[Path]:
    """Make the partial directory of a backup and lock it.

    When the context exits, a directory that was not renamed is removed.
    """
    name = whole.name + UNFINISHED
    with openat.directory(whole.parent) as backups:
        made = backups.make(name)
        try:
            fcntl.flock(made.descriptor, fcntl.LOCK_EX)
            yield made.path
        finally:
            with suppress(OSError):
                backups.remove(name)
            made.close()


def remove_leftovers(stack: Stack) -> None:
    """Remove the partial directories that killed runs have left behind. No process has locked such a directory."""
    with openat.directory(stack.paths.backups) as backups:
        for path in stack.paths.backups.glob(f"*{UNFINISHED}"):
            left = backups.below(path.name)
            try:
                fcntl.flock(left.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                verify.remove(stack, path.name.removesuffix(UNFINISHED))
                backups.remove(path.name)
            except BlockingIOError:
                continue
            finally:
                left.close()


def discard(whole: Path) -> None:
    """Rename a backup before deleting its files, so that a killed run leaves no damaged backup."""
    leftover = whole.name + UNFINISHED
    with openat.directory(whole.parent) as backups:
        backups.rename(whole.name, leftover)
        backups.remove(leftover)
