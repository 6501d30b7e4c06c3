"""Writes numbered keys to Redis, one after another, and prints each key that Redis accepted.

The program runs on the droplet as `python3 -u -c`. Arguments: Redis's address and the keys' prefix. The program reads
the password from standard input and ends when Redis ends.
"""

import socket
import sys
import time
from contextlib import suppress

PAUSE_S = 0.002


def main(address: str, prefix: str) -> None:
    connection = socket.create_connection((address, 6379), timeout=10)
    answers = connection.makefile("rb")

    def ask(*words: str) -> bytes:
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        return answers.readline()

    assert ask("AUTH", sys.stdin.read()) == b"+OK\r\n"
    number = 0
    while ask("SET", f"{prefix}:{number}", str(number)) == b"+OK\r\n":
        print(number, time.monotonic(), flush=True)
        number += 1
        time.sleep(PAUSE_S)


with suppress(OSError):  # Redis is gone, and all accepted keys are printed
    main(*sys.argv[1:])
