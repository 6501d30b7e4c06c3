"""Facts about files on the droplet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from pyinfra.api import FactBase, QuoteString, StringCommand


class FileProperties(TypedDict):
    """A file's properties. `mode` is an octal number as text, such as "644"."""

    mode: str
    owner: str
    group: str
    sha256: str


class FileState(FactBase[FileProperties | None]):
    """A regular file's mode, owner, group and content hash, read by one command. None if there is no regular file."""

    def command(self, path: str) -> StringCommand:
        file = QuoteString(path)
        return StringCommand("test -f", file, "&& stat -L -c '%a %U %G'", file, "&& sha256sum <", file, "|| true")

    def process(self, output: Iterable[str]) -> FileProperties | None:
        lines = list(output)
        if len(lines) != 2:
            return None
        mode, owner, group = lines[0].split()
        return FileProperties(mode=mode, owner=owner, group=group, sha256=lines[1].split()[0])


class PendingHandlers(FactBase[frozenset[str]]):
    """The names of the handlers that have yet to run (operations/handlers.py)."""

    default = frozenset

    def command(self, directory: str) -> StringCommand:
        return StringCommand("ls -1", QuoteString(directory), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> frozenset[str]:
        return frozenset(output)
