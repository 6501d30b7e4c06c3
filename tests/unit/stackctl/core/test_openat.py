"""In a directory of an unprivileged user, no link leads root to a file elsewhere."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.core.openat import Directory
from tests.support.planted import PLANTED, SECRET


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Create a file of root that the attacker wants to read or to change."""
    path = tmp_path / "outside"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Create the attacker's directory."""
    path = tmp_path / "start" / "theirs"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def opened(theirs: Path) -> Iterator[Directory]:
    with openat.directory(theirs.parent, "theirs") as directory:
        yield directory


@PLANTED
def test_a_link_or_fifo_is_not_read(
    opened: Directory, theirs: Path, outside: Path, plant: Callable[[Path, Path], None], kind: str
) -> None:
    plant(theirs / "name", outside)
    with pytest.raises(FailedError, match=f"theirs/name {kind}"):
        opened.read("name", 100)
    with pytest.raises(FailedError, match=f"theirs/name {kind}"):
        opened.size("name")


@PLANTED
def test_a_write_replaces_a_link_or_fifo(
    opened: Directory, theirs: Path, outside: Path, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """A write creates a new file in place of a link, a FIFO or a file with a second name."""
    plant(theirs / "name", outside)
    plant(theirs / "other.new", outside)
    with opened.creating("name", 0o640) as file:
        file.write(b"ours")
    opened.write("other", b"ours")
    assert opened.names() == ["name", "other"]
    for name, mode in (("name", 0o640), ("other", 0o600)):
        assert not (theirs / name).is_symlink()
        assert ((theirs / name).read_bytes(), (theirs / name).stat().st_mode & 0o777) == (b"ours", mode)
    assert (outside.read_bytes(), outside.stat().st_mode & 0o777) == (SECRET, 0o600)


@PLANTED
def test_a_removal_deletes_no_target_of_a_link(
    opened: Directory, theirs: Path, outside: Path, plant: Callable[[Path, Path], None], kind: str
) -> None:
    plant(theirs / "name", outside)
    assert opened.has("name")
    opened.remove("name")
    assert not opened.has("name")
    assert outside.read_bytes() == SECRET
    opened.remove("name")  # the second removal finds no file


def test_a_file_that_is_longer_than_it_may_be_is_not_read(opened: Directory, theirs: Path) -> None:
    (theirs / "name").write_bytes(b"12345")
    assert opened.read("name", 5) == b"12345"
    with pytest.raises(FailedError, match="name has more than 4 bytes"):
        opened.read("name", 4)
    with (theirs / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FailedError, match="huge has more than"):
        opened.read("huge", 1 << 20)


def test_a_file_that_grows_while_it_is_read_ends_at_its_limit(
    opened: Directory, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openat, "BLOCK", 4)
    (theirs / "name").write_bytes(b"1234")
    blocks = opened.blocks("name", 8)
    assert next(blocks) == b"1234"
    with (theirs / "name").open("ab") as file:
        file.write(b"more and more")
    assert next(blocks) == b"more"
    with pytest.raises(FailedError, match="more than 8 bytes"):
        next(blocks)


@contextmanager
def swapped(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` once, right after the first os.open of this name."""
    real, left = os.open, [act]

    def opening(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        descriptor = real(path, flags, *arguments, **named)
        if left and path == name:
            left.pop()()
        return descriptor

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opening)
        yield
    assert not left, "os.open was never called with this name"


def test_a_file_that_is_swapped_after_it_was_looked_at_is_not_what_is_read(
    opened: Directory, theirs: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (theirs / "name").write_bytes(b"harmless")

    def swap() -> None:
        (theirs / "name").rename(theirs / "moved")
        (theirs / "name").symlink_to(outside)

    with swapped(monkeypatch, "name", swap):
        assert opened.read("name", 100) == b"harmless"


def test_a_directory_that_is_swapped_after_it_was_opened_is_not_what_is_written_to(
    theirs: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, elsewhere = theirs / "inner", outside.parent / "elsewhere"
    inner.mkdir()
    elsewhere.mkdir()

    def swap() -> None:
        inner.rename(theirs / "moved")
        inner.symlink_to(elsewhere)

    with (
        swapped(monkeypatch, "inner", swap),
        openat.directory(theirs.parent, "theirs", "inner") as opened,
    ):
        opened.write("name", b"ours")
        opened.remove("other")
    assert list(elsewhere.iterdir()) == []
    assert (theirs / "moved/name").read_bytes() == b"ours"


def test_a_link_laid_between_removal_and_creation_is_refused(
    opened: Directory, theirs: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "remove", lambda name: (theirs / name).symlink_to(outside))
    with pytest.raises(FileExistsError), opened.creating("name") as file:
        file.write(b"ours")
    assert outside.read_bytes() == SECRET


@pytest.mark.parametrize("what", ["link", "file", "fifo"])
def test_only_directories_are_gone_down_through(theirs: Path, outside: Path, what: str) -> None:
    if what == "link":
        (theirs / "inner").symlink_to(outside.parent)
    elif what == "fifo":
        os.mkfifo(theirs / "inner")
    else:
        (theirs / "inner").touch()
    with (
        pytest.raises(FailedError, match=r"inner is a .*, not a directory"),
        openat.directory(theirs.parent, "theirs", "inner"),
    ):
        pass


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_start_directory_must_be_writable_only_by_root(theirs: Path, mode: int) -> None:
    theirs.chmod(mode)
    with (
        pytest.raises(FailedError, match=r"can be changed by users other than root\. Next: sudo chown"),
        openat.directory(theirs),
    ):
        pass
    with openat.directory(theirs.parent, "theirs"):
        """If root opens it through the parent, any user may own it."""


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", ".", ""])
def test_a_name_is_no_path(opened: Directory, name: str) -> None:
    for act in (opened.size, opened.remove, opened.below, lambda name: opened.read(name, 1)):
        with pytest.raises(ValueError, match="not the name of a single directory entry"):
            act(name)


def test_a_copy_belongs_to_whoever_owns_the_directory(opened: Directory, theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/original").write_bytes(b"data")
    (theirs / "name").symlink_to(tmp_path / "source/original")
    with patch("os.fchown") as given, openat.directory(tmp_path / "source") as source:
        opened.copy("name", source, "original", 4)
        with pytest.raises(FailedError, match="more than 3 bytes"):
            opened.copy("again", source, "original", 3)
    assert [call.args[1:] for call in given.mock_calls] == [opened.owner]
    assert ((theirs / "name").read_bytes(), (theirs / "name").stat().st_mode & 0o777) == (b"data", 0o600)


@pytest.mark.usefixtures("swept")
def test_no_tree_is_too_deep_or_too_wide_to_be_removed(
    opened: Directory, theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker chooses a tree's depth, and shutil.rmtree would need a file descriptor for each level."""
    monkeypatch.setattr(openat, "BATCH", 7)
    depth, here = 1500, os.open(theirs, os.O_RDONLY)
    for _ in range(depth):
        for name in ("d", "e"):
            os.mkdir(name, dir_fd=here)
        os.close(os.open("f", os.O_CREAT, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    for number in range(50):
        (theirs / "d" / str(number)).touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100), hard))
    try:
        opened.remove("d")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert opened.names() == ["e", "f"]


def test_what_is_missing_is_named_by_its_path(opened: Directory, theirs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(theirs / "name")):
        opened.read("name", 1)
