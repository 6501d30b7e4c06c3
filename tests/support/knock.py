"""Knock at a TCP port with raw Ethernet frames, which reach an address without a route to it.

Runs on the attacker as `python3 -c`. Arguments: the droplet that receives the frames, the address and port in the
frames, the number of seconds, and optionally a file. If the file is removed, the knocks end early. Prints the number of
accepted knocks (SYN and ACK), of refused knocks (RST) and of all knocks.
"""

import random
import socket
import struct
import sys
import time
from pathlib import Path

EVERY_S = 0.05
TIMEOUT_S = 0.3
SYN, RST, SYN_ACK = 0x02, 0x04, 0x12


def main(droplet: str, address: str, port: int, seconds: float, file: str = "") -> None:
    own, interface, mac = neighbour(droplet)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    wire.bind((interface, 0))
    wire.settimeout(0.0)
    ethernet = bytes.fromhex(mac.replace(":", "")) + wire.getsockname()[4] + b"\x08\x00"
    # Use new source ports each time, because connection tracking could take a reused port for an accepted connection.
    first = random.randrange(40000)
    began, knocks, opened, refused = time.monotonic(), 0, 0, 0
    while (now := time.monotonic() - began) < seconds + TIMEOUT_S:
        if file and not Path(file).exists():
            seconds = min(seconds, now)
        if now < seconds:
            wire.send(ethernet + syn(own, address, 20000 + (first + knocks) % 40000, port))
            knocks += 1
        time.sleep(EVERY_S)
        for flags in answers(wire, address, port):
            opened += flags & SYN_ACK == SYN_ACK
            refused += bool(flags & RST)
    print(opened, refused, knocks)


def neighbour(droplet: str) -> tuple[str, str, str]:
    """Return the attacker's address and interface, and the droplet's Ethernet address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greeting:
        greeting.connect((droplet, 9))
        greeting.send(b"")
        own = greeting.getsockname()[0]
    for _ in range(100):
        for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
            address, _, flags, mac, _, interface = line.split()
            if address == droplet and flags != "0x0":
                return own, interface, mac
        time.sleep(EVERY_S)
    sys.exit(f"{droplet} answers no ARP")


def syn(source: str, target: str, source_port: int, port: int) -> bytes:
    """Return an IPv4 packet that opens a connection (RFC 791, RFC 9293)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, SYN, 64240, 0, 0)
    tcp = tcp[:16] + checksum(addresses + struct.pack("!HH", 6, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
    return ip[:10] + checksum(ip) + ip[12:] + tcp


def checksum(content: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def answers(wire: socket.socket, address: str, port: int) -> list[int]:
    """Return the TCP flags of the packets that have arrived from this address and port."""
    found: list[int] = []
    while True:
        try:
            packet = wire.recv(2048)[14:]
        except BlockingIOError:
            return found
        start = (packet[0] & 15) * 4
        from_there = packet[12:16] == socket.inet_aton(address) and packet[9] == 6
        if from_there and struct.unpack("!H", packet[start : start + 2])[0] == port:
            found.append(packet[start + 13])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), *sys.argv[5:])
