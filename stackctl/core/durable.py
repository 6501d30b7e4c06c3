"""Changes to a file that are there whole or not at all, whenever the power goes."""

import os
from pathlib import Path
from typing import BinaryIO


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content`."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the caller's umask
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def link(path: Path, target: str) -> None:
    """Point the symbolic link `path` at `target`; whoever opens it meanwhile finds the old or the new one."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    _sync_directory(path.parent)


def remove(path: Path) -> None:
    """Have no such file any more."""
    path.unlink()
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, target: Path) -> None:
    """Give a finished directory its name."""
    path.rename(target)
    _sync_directory(target.parent)


def sync(file: BinaryIO) -> None:
    """Have what was written to it by another program on the disk."""
    os.fsync(file.fileno())
