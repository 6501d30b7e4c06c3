"""Runs on the droplet, as `python3 -c`: where do the strings that come on standard input, separated by NUL, turn up?

command PROGRAM ARGUMENT…   how many lines of its output have one
files FOLDER…               which files that others may read have one
all-files FOLDER…           which files at all have one
changed SECONDS FOLDER…     which files that changed since then (of the epoch) have one; -FOLDER is left out
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
    """Regular files only: a FIFO or a device would keep us waiting."""
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]


def changed(since: float, folders: list[str]) -> Iterator[str]:
    """By ctime, which no copying preserves. What vanishes meanwhile is left out."""
    without = {folder.removeprefix("-") for folder in folders if folder.startswith("-")}
    for folder in folders:
        for root, below, names in os.walk(folder):
            below[:] = [name for name in below if os.path.join(root, name) not in without]
            for path in (os.path.join(root, name) for name in names):
                with suppress(FileNotFoundError):
                    found = os.lstat(path)
                    if stat.S_ISREG(found.st_mode) and found.st_ctime >= since:
                        yield path


def content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST)
    except FileNotFoundError:
        return b""


main(*sys.argv[1:])
