"""A simulated disk that keeps only synced data, so that a test sees the content of real files after a power cut."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

CALLS = ("fsync", "replace", "rename", "unlink", "rmdir", "symlink", "mkdir", "link")
Entry = bytes | int
"""A symbolic link's target, or a file's inode number."""


class Disk:
    """A disk that keeps a file's content after fsync of the file, and its name after fsync of the directory.

    A new name may also reach the disk at any other time, even before the file's content.
    """

    def __init__(self, root: Path) -> None:
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, Entry]] = {}
        self._held: list[int] = []
        """Open descriptors, so that no inode number is reused."""
        for path in (root, *root.rglob("*")):
            if not path.is_symlink():
                with self._opened(path) as descriptor:
                    self._keep(descriptor)

    @contextmanager
    def watching(self, moment: Callable[[], object]) -> Iterator[None]:
        """Call `moment` after each call that may change the disk's content."""
        with ExitStack() as patches:
            for name in CALLS:
                patches.enter_context(patch(f"os.{name}", self._watched(name, getattr(os, name), moment)))
            yield
        while self._held:
            os.close(self._held.pop())

    def after_a_cut(self, path: Path) -> set[bytes | None]:
        """Return the possible contents of this path after a power cut now. None means no file."""
        here = os.stat(path.parent).st_ino  # noqa: PTH116 - as os.lstat below
        return {self._read(self._names.get(here, {}).get(path.name)), self._read(_entry(path))}

    def _watched(self, name: str, real: Callable[..., Any], moment: Callable[[], object]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            done = real(*arguments, **named)
            if name == "fsync":
                self._keep(arguments[0])
            moment()
            return done

        return call

    def _keep(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        self._held.append(os.dup(descriptor))
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = {name: entry for name in os.listdir(path) if (entry := _entry(path / name))}  # noqa: PTH208
        else:
            self._content[found.st_ino] = path.read_bytes()

    def _read(self, entry: Entry | None) -> bytes | None:
        return self._content.get(entry, b"") if isinstance(entry, int) else entry

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _entry(path: Path) -> Entry | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return os.fsencode(path.readlink()) if stat.S_ISLNK(found.st_mode) else found.st_ino
