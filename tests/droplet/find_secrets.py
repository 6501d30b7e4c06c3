"""Find strings in output and files. Runs on the droplet as `python3 -c`. Standard input: the strings, separated by NUL.

command PROGRAM ARGUMENT…   print how many lines of its output contain one
files FOLDER…               print the files that others may read and that contain one
all-files FOLDER…           print all files that contain one
changed SECONDS FOLDER…     print the files changed since then (Unix time) that contain one; -FOLDER is left out
"""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

LARGEST = 64 * 2**20


def main(mode: str, *arguments: str) -> None:
    secrets = re.compile(b"|".join(re.escape(one) for one in sys.stdin.buffer.read().split(b"\0") if one))
    if mode == "command":
        output = subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout
        print(sum(1 for line in output.splitlines() if secrets.search(line)))
        return
    if mode == "changed":
        since, *folders = arguments
        for path in changed(float(since), folders):
            if secrets.search(content(path)):
                print(path)
        return
    for folder in arguments:
        for path in files(folder):
            others_may = os.stat(path).st_mode & 0o044
            if (others_may or mode == "all-files") and secrets.search(content(path)):
                print(path)


def files(folder: str) -> list[str]:
    """Return the regular files: a read of a FIFO or a device could block."""
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]


def changed(since: float, folders: list[str]) -> Iterator[str]:
    """Yield the files whose ctime, which no copying preserves, is not older. Skip files that vanish meanwhile."""
    without = {folder.removeprefix("-") for folder in folders if folder.startswith("-")}
    for path in below(folders, without):
        with suppress(FileNotFoundError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_ctime >= since:
                yield path


def below(folders: list[str], without: set[str]) -> Iterator[str]:
    for folder in folders:
        for root, directories, names in os.walk(folder):
            directories[:] = [name for name in directories if os.path.join(root, name) not in without]
            yield from (os.path.join(root, name) for name in names)


def content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST)
    except FileNotFoundError:
        return b""


main(*sys.argv[1:])
