"""Find secrets in output and files. Runs on the droplet as `python3 -c`. Standard input: the secrets, separated by NUL.

command PROGRAM ARGUMENT…   print how many lines of the program's output contain a secret
files FOLDER…               print the files that contain a secret and that others may read
all-files FOLDER…           print all files that contain a secret, and still contain a secret after a second
changed SECONDS FOLDER…     like all-files, but only files changed since this Unix time; -FOLDER excludes a folder

The second look leaves out files that exist only for a moment. In /tmp/runc-process…, containerd gives runc the
environment of each `docker exec` and health check, and removes the file immediately.
"""

import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Set
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
        paths = changed(float(since), folders)
    elif mode == "files":
        paths = (path for path, status in files(arguments) if status.st_mode & 0o044)
    else:
        paths = (path for path, _ in files(arguments))
    found = [path for path in paths if secrets.search(content(path))]
    if found and mode != "files":
        time.sleep(1)
        found = [path for path in found if secrets.search(content(path))]
    for path in found:
        print(path)


def changed(since: float, folders: Iterable[str]) -> Iterator[str]:
    """Yield the files that changed after `since`, judged by ctime, because a copy never preserves a file's ctime."""
    without = {folder.removeprefix("-") for folder in folders if folder.startswith("-")}
    return (path for path, status in files(folders, without) if status.st_ctime >= since)


def files(folders: Iterable[str], without: Set[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield only regular files, because a read of a FIFO or a device could block.

    Skip a file that vanishes during the search.
    """
    for path in below(folders, without):
        with suppress(FileNotFoundError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                yield path, status


def below(folders: Iterable[str], without: Set[str]) -> Iterator[str]:
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
