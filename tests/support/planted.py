"""Links, FIFOs and similar things that an unprivileged user may plant in place of a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SECRET = b"root's alone"


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside.with_name("nowhere"))


def hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside)


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def tree(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "inside").symlink_to(outside.parent)


PLANTED = pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (link, "is a symbolic link, not a file"),
        (dangling, "is a symbolic link, not a file"),
        (hard_link, r"has 2 names \(hard links\), not one"),
        (fifo, "is a FIFO, not a file"),
        (tree, "is a directory, not a file"),
    ],
)
