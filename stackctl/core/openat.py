"""Opens files step by step through directory descriptors, in directories that users other than root can write to.

Files below DATA_ROOT belong to uid 999, the uid of PostgreSQL and Redis in the containers. Files fetched from the
off-site storage may come from an intruder. If root opened such files by path, root could follow planted links (CWE-59),
block on a FIFO, or read a file that also has a name elsewhere. Therefore this module uses a path only up to the last
directory that root alone can change. From that directory on, each name is opened from the descriptor of its directory
(openat(2)), and checked before use. Links are never followed.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from stackctl.core.errors import FailedError

BLOCK = 1 << 20
BATCH = 1000
"""The most names of a directory in memory at once. Other users decide how many names there are."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def directory(start: Path, *names: str) -> Iterator["Directory"]:
    """Open `start`, which root alone may change, and descend through the subdirectories `names`.

    Raises FailedError if other users may change `start`, or if a name is not a directory. Other failures of open(2)
    raise OSError.
    """
    here = Directory(os.open(start, _DIRECTORY), start)
    try:
        here.check_owner()
        for name in names:
            below = here.below(name)
            here.close()
            here = below
        yield here
    finally:
        here.close()


class Directory:
    """An open directory.

    In its methods, a `name` is an entry of the directory, and never a path. `path` is only used in messages.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor, self.path = descriptor, path

    def close(self) -> None:
        os.close(self.descriptor)

    def below(self, name: str) -> "Directory":
        """Open a subdirectory. The caller closes the result."""
        try:
            return Directory(self._open(name, _DIRECTORY), self.path / name)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise FailedError(f"{self.path / name} is {self._kind(name)}, not a directory") from None
            raise

    def check_owner(self) -> None:
        """Raise FailedError if users other than root (in tests: the caller) may change the entries."""
        found = os.fstat(self.descriptor)
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise FailedError(
                f"{self.path} can be changed by users other than root",
                next_step=f"sudo chown root:root {self.path} && sudo chmod go-w {self.path}",
            )

    @property
    def owner(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_uid, found.st_gid

    def names(self) -> list[str]:
        """Return the names of at most BATCH entries."""
        with os.scandir(self.descriptor) as entries:
            return sorted(entry.name for entry in islice(entries, BATCH))

    def has(self, name: str) -> bool:
        """Return whether the directory has an entry of this name. A dangling link counts as an entry."""
        try:
            self._stat(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Return the size of a file. Raises FailedError unless the file is regular and has no other hard link."""
        found = self._stat(name)
        self._check(name, found)
        return found.st_size

    @contextmanager
    def reading(self, name: str, most: int) -> Iterator[BinaryIO]:
        """Open a file to read.

        Raises FailedError unless the file is regular, has no other hard link, and has at most `most` bytes.

        Check the file before opening the file, because merely opening a device may have an effect. The opened file is
        always the checked file, even if somebody replaces the directory entry in the meantime.
        """
        seen = self._open(name, os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(seen)
            self._check(name, found)
            if found.st_size > most:
                raise FailedError(self._too_long(name, most))
            descriptor = os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(seen)
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def blocks(self, name: str, most: int) -> Iterator[bytes]:
        """Yield a file's content, but at most `most` bytes even if the file grows.

        Raises the same errors as `reading`.
        """
        with self.reading(name, most) as file:
            left = most
            while block := file.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise FailedError(self._too_long(name, most))
                yield block

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a small file. Raises the same errors as `reading`."""
        return b"".join(self.blocks(name, most))

    @contextmanager
    def creating(self, name: str, mode: int = 0o600, owner: tuple[int, int] | None = None) -> Iterator[BinaryIO]:
        """Create a file, and replace any entry of the same name.

        When the context exits, the file is synced and belongs to `owner`. Until then, the file belongs to root. If
        somebody plants a link of that name meanwhile, open(2) refuses to follow the link.
        """
        self.remove(name)
        descriptor = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if owner:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)

    def copy(self, name: str, source: "Directory", original: str, most: int) -> None:
        """Copy the file `original` of the directory `source` to `name`. The copy gets the owner of this directory."""
        with self.creating(name, owner=self.owner) as file:
            for block in source.blocks(original, most):
                file.write(block)

    def write(self, name: str, content: bytes) -> None:
        """Replace the content of `name`. After a power failure the file has the old or the new content."""
        fresh = f"{name}.new"
        with self.creating(fresh) as file:
            file.write(content)
        self.rename(fresh, name)

    def rename(self, name: str, target: str) -> None:
        """Rename an entry, replace any file of the new name, and sync the change to the disk."""
        os.rename(_one(name), _one(target), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        self.sync()

    def make(self, name: str) -> "Directory":
        """Create a directory that only root can use, and open the directory. The caller closes the result."""
        os.mkdir(_one(name), 0o700, dir_fd=self.descriptor)
        return self.below(name)

    def remove(self, name: str) -> None:
        """Remove an entry of any kind, with everything in it. Do nothing if there is no such entry."""
        try:
            removed = self.unlink(name)
        except FileNotFoundError:
            return
        if not removed:
            below = self.below(name)
            try:
                below.empty()
            finally:
                below.close()
            os.rmdir(name, dir_fd=self.descriptor)
        self.sync()

    def unlink(self, name: str) -> bool:
        """Remove an entry, or return False if the entry is a directory. A power failure may undo the removal."""
        try:
            os.unlink(_one(name), dir_fd=self.descriptor)
        except IsADirectoryError:
            return False
        return True

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def empty(self) -> None:
        """Remove all entries.

        Before a subdirectory is removed, its own subdirectories move up into this directory. Because of this, even a
        very deep tree exhausts neither the descriptors nor the stack.
        """
        while names := self.names():
            for name in names:
                if not self.unlink(name):
                    self._flatten(name)

    def _flatten(self, name: str) -> None:
        below = self.below(name)
        try:
            while names := below.names():
                self._take_over(below, names)
        finally:
            below.close()
        os.rmdir(name, dir_fd=self.descriptor)

    def _take_over(self, below: "Directory", names: list[str]) -> None:
        """Remove the entries `names` of `below`.

        Subdirectories of `below` move into this directory, to be emptied later.
        """
        for name in names:
            if not below.unlink(name):
                aside = secrets.token_hex(16)  # a container cannot guess this name, and so cannot occupy the name
                os.rename(name, aside, src_dir_fd=below.descriptor, dst_dir_fd=self.descriptor)

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(_one(name), dir_fd=self.descriptor, follow_symlinks=False)

    def _open(self, name: str, flags: int) -> int:
        try:
            return os.open(_one(name), flags | os.O_NOFOLLOW, 0o600, dir_fd=self.descriptor)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def _check(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise FailedError(f"{self.path / name} is {_kind(found)}, not a file")
        if found.st_nlink != 1:
            raise FailedError(f"{self.path / name} has {found.st_nlink} names (hard links), not one")

    def _kind(self, name: str) -> str:
        try:
            return _kind(self._stat(name))
        except FileNotFoundError:
            return "gone"

    def _too_long(self, name: str, most: int) -> str:
        return f"{self.path / name} has more than {most} bytes"


def _kind(found: os.stat_result) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFDIR: "a directory",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(found.st_mode), "a device or a socket")


def _one(name: str) -> str:
    """Return the name. Raises ValueError unless the name can be the name of a directory entry."""
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} is not the name of a single directory entry")
    return name
