"""After a power cut, a file has either its old or its new content."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackctl.core import durable, openat
from tests.support.power import Disk


class Power(BaseException):
    """The exception that simulates a power cut."""


NEW = b"new" * 50_000


def openat_write(path: Path) -> None:
    with openat.directory(path.parent) as directory:
        directory.write(path.name, NEW)


def openat_copy(path: Path) -> None:
    with openat.directory(path.parent) as directory, openat.directory(path.parent / "source") as source:
        directory.copy("fresh", source, "original", len(NEW))
        directory.rename("fresh", path.name)


def openat_remove(path: Path) -> None:
    with openat.directory(path.parent) as directory:
        directory.remove(path.name)


@pytest.mark.parametrize(
    ("act", "becomes"),
    [
        (lambda path: durable.write(path, NEW), NEW),
        (openat_write, NEW),
        (openat_copy, NEW),
        (lambda path: durable.link(path, "new"), b"new"),
        (durable.remove, None),
        (openat_remove, None),
        (lambda path: durable.rename(path.with_name("finished"), path), NEW),
    ],
    ids=["write", "openat write", "openat copy", "link", "remove", "openat remove", "rename"],
)
def test_a_power_cut_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, act: Callable[[Path], None], becomes: bytes | None
) -> None:
    """A file's content is on the disk before its name, and its name is on the disk before the caller continues.

    The old file does not change, so a program with the open file can continue to read it.
    """
    path, old = tmp_path / "file", b"old" * 50_000
    path.write_bytes(old)
    (tmp_path / "finished").write_bytes(NEW)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/original").write_bytes(NEW)
    disk, seen = Disk(tmp_path), set[bytes | None]()
    with path.open("rb") as reader:
        with disk.watching(lambda: seen.update(disk.after_a_cut(path))):
            act(path)
        assert reader.read() == old
    assert seen == {old, becomes}
    assert disk.after_a_cut(path) == {becomes}


def test_a_power_cut_is_seen_where_nothing_was_synced(tmp_path: Path) -> None:
    """Control: without a sync, neither the content nor the name is on the disk."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk = Disk(tmp_path)
    (tmp_path / "file.new").write_bytes(b"new")
    (tmp_path / "file.new").replace(path)
    assert disk.after_a_cut(path) == {b"old", b""}
    with path.open("rb") as file:
        disk._keep(file.fileno())
    assert disk.after_a_cut(path) == {b"old", b"new"}


@pytest.mark.parametrize("act", [lambda path: durable.write(path, NEW), lambda path: durable.link(path, "new")])
def test_a_write_that_was_interrupted_anywhere_succeeds_again(tmp_path: Path, act: Callable[[Path], None]) -> None:
    """The remains of an interrupted attempt do not prevent the next attempt."""
    path, cuts = tmp_path / "file", 0
    for cut in range(20):
        left = [cut]

        def cutting(real: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] == -1:
                    raise Power
                return real(*arguments, **named)

            return call

        with pytest.MonkeyPatch.context() as patched:
            for name in ("open", "fsync", "replace", "unlink", "symlink"):
                patched.setattr(os, name, cutting(getattr(os, name)))
            try:
                act(path)
            except Power:
                cuts += 1
        act(path)
        path.unlink()
    assert cuts >= 4


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_only_root_reads_what_is_written_unless_it_is_meant_for_others(tmp_path: Path, umask: int) -> None:
    """Only root can read a file, under any umask of the caller, unless other readers are requested."""
    former = os.umask(umask)
    try:
        durable.write(tmp_path / "secret", b"x")
        durable.write(tmp_path / "flag", b"", 0o644)
    finally:
        os.umask(former)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("secret", "flag")]
    assert modes == [0o600, 0o644]
