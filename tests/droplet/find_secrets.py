"""Runs on the droplet, as `python3 -c`: where do the strings that come on standard input, separated by NUL, turn up?

command PROGRAM ARGUMENT…   how many lines of its output have one
files FOLDER…               which files that others may read have one
all-files FOLDER…           which files at all have one
"""

import os
import re
import subprocess
import sys

LARGEST = 8 * 2**20


def main(mode: str, *arguments: str) -> None:
    secrets = re.compile(b"|".join(re.escape(one) for one in sys.stdin.buffer.read().split(b"\0") if one))
    if mode == "command":
        output = subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout
        print(sum(1 for line in output.splitlines() if secrets.search(line)))
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


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(LARGEST)


main(*sys.argv[1:])
