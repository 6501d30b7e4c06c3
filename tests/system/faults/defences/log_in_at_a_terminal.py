"""Logs root in with login(1) on a terminal, as at the console.

The program reads the password from standard input. Prints what the terminal showed.
"""

import os
import pty
import select
import sys
import time
from contextlib import suppress

PATIENCE_S = 20

password = sys.stdin.read()
child, terminal = pty.fork()
if child == 0:
    os.execv("/bin/login", ["login"])  # noqa: S606 - no shell is the point


def read() -> bytes:
    """Return what the terminal shows next.

    login(1) first hangs up the terminal and then opens the terminal again. A read between the hang-up and the opening
    fails.
    """
    if select.select([terminal], [], [], 0.2)[0]:
        with suppress(OSError):
            return os.read(terminal, 4096)
    time.sleep(0.1)
    return b""


def wait_for(words: bytes) -> None:
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    while words not in seen:
        seen += (more := read())
        print(more.decode(errors="replace"), end="")
        if time.monotonic() > deadline:
            sys.exit(f"no {words.decode()!r} came")


for awaited, answer in ((b"login:", "root"), (b"assword:", password), (b"# ", "echo I am $(id -un)")):
    wait_for(awaited)
    os.write(terminal, answer.encode() + b"\n")
wait_for(b"I am root")
