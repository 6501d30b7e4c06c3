"""Changes files in a way that survives a power failure: each change is either complete or has not happened."""

import os
from pathlib import Path
from typing import BinaryIO


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the content of `path`."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # set the mode again, because open(2) applies the umask
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def link(path: Path, target: str) -> None:
    """Point the symbolic link `path` at `target`. At every moment, the link points to the old or the new target."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    _sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, target: Path) -> None:
    """Rename a finished directory."""
    path.rename(target)
    _sync_directory(target.parent)


def sync(file: BinaryIO) -> None:
    """Sync a file that another program has written to the disk."""
    os.fsync(file.fileno())
