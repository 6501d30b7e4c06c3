"""Tools for attacks on a droplet and for tests of its defences."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testinfra.host import Host

from tests.lab.layout import NEIGHBOUR, NETWORK6, Machine, by_name

KNOCK = Path(__file__).with_name("knock.py").read_text()
RULES_BACK = "iptables-restore --noflush /etc/ufw/after.rules"
DOCKER_USER_OUT = "iptables -t mangle -F FORWARD && iptables -D DOCKER-USER -j DROP"
"""The commands that remove our rules in DOCKER-USER and mangle. mangle protects until Docker uses DOCKER-USER."""
RAW_OUT = "iptables -t raw -F PREROUTING"

PUBLIC, LOOPBACK, CARELESS = 5432, 5433, 5434
"""The stray container's ports on the host, which are published on 0.0.0.0, on 127.0.0.1 and without an address."""
STRAY = "/root/stray.yaml"
KNOCKING, TOO_LONG_S = "/run/knocking", 300
# ConnectTimeout covers only the greeting. If a ban starts later, ssh would wait for ever without `timeout`.
SSH = "timeout 20 ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3"
LISTENS = "import socket; socket.create_connection(('127.0.0.1', 5432), 1)"


@dataclass(frozen=True)
class Stray:
    """A container whose ports a foreign Compose file publishes."""

    address: str
    """The container's address on Docker's network, where it listens on 5432."""


def machine_of(droplet: Host) -> Machine:
    return by_name(droplet.backend.get_hostname())


def guess_at_ssh(attacker: Host, droplet: Host) -> bool:
    """Try to log in as root, the most common guess, and return whether sshd answers."""
    # Exit code 255 would mean an error of our SSH connection.
    return "Permission denied" in attacker.run(f"{SSH} root@{machine_of(droplet).ipv4} || true").stderr


def pardon(droplet: Host) -> None:
    """Unban the attacker, and make fail2ban forget the attacker's failures."""
    droplet.check_output(f"fail2ban-client unban {NEIGHBOUR.ipv4} {NEIGHBOUR.ipv6} {NETWORK6.network_address}")


@contextmanager
def knocking(attacker: Host, droplet: Host, port: int) -> Iterator[None]:
    """Knock during the context, and assert that no knock was accepted."""
    attacker.check_output(f"touch {KNOCKING}")
    with ThreadPoolExecutor() as beside:
        knocks = beside.submit(open_to, attacker, droplet, port, seconds=TOO_LONG_S, while_there=KNOCKING)
        try:
            yield
        finally:
            attacker.check_output(f"rm {KNOCKING}")
        assert not knocks.result()


def open_to(
    attacker: Host,
    droplet: Host,
    port: int,
    *,
    address: str | None = None,
    seconds: float = 0.5,
    while_there: str = "",
) -> bool:
    """Return whether the droplet accepts a knock at `address`. The default is the droplet's own address."""
    own = str(machine_of(droplet).ipv4)
    knock = ["python3", "-c", KNOCK, own, address or own, str(port), str(seconds), while_there]
    opened, _, knocks = (int(word) for word in attacker.check_output(shlex.join(knock)).split())
    assert knocks > 0
    return opened > 0


def open_over_ipv6(attacker: Host, droplet: Host, port: int) -> bool:
    return bool(attacker.run(f"timeout 1 bash -c '</dev/tcp/{machine_of(droplet).ipv6}/{port}'").rc == 0)


def passed_on(attacker: Host, droplet: Host, stray: Stray, port: int) -> bool:
    """Return whether the counters of Docker's rules show that a knock at 127.0.0.1 reached the stray container.

    The attacker sees no answer in the lab, because the gateway drops packets from 127.0.0.1.
    """
    droplet.check_output("iptables -Z DOCKER")
    open_to(attacker, droplet, port, address="127.0.0.1")
    counted = droplet.check_output("iptables -nvxL DOCKER").splitlines()
    return any(int(line.split()[0]) > 0 for line in counted if stray.address in line)


@contextmanager
def taken_out(droplet: Host, *commands: str) -> Iterator[None]:
    """Remove a part of the firewall, to show that a test of this part can fail."""
    try:
        for command in commands:
            droplet.check_output(command)
        yield
    finally:
        droplet.check_output(RULES_BACK)


@contextmanager
def stray_compose_file(droplet: Host) -> Iterator[Stray]:
    """Start a container like that of a person who tries out a database. The container restarts after a reboot."""
    web = "docker ps --quiet --filter label=com.docker.compose.service=web"
    image = droplet.check_output(f"docker inspect --format '{{{{.Image}}}}' $({web} | head -n1)")
    service = {
        "image": image,
        "pull_policy": "never",
        # A container whose first program ignores SIGTERM would delay a shutdown by 90 s.
        "entrypoint": ["sh", "-c", "trap exit TERM; python3 -m http.server 5432 & wait"],
        "ports": [f"0.0.0.0:{PUBLIC}:5432", f"127.0.0.1:{LOOPBACK}:5432", f"{CARELESS}:5432", f"[::]:{PUBLIC}:5432"],
        "healthcheck": {"test": ["CMD", "python3", "-c", LISTENS], "interval": "1s", "retries": 20},
        "restart": "always",
    }
    compose = f"docker compose --env-file /dev/null -p stray -f {STRAY}"
    droplet.check_output(f"echo {shlex.quote(json.dumps({'services': {'stray': service}}))} > {STRAY}")
    try:
        droplet.check_output(f"{compose} up --detach --wait --quiet-pull")
        inspected = json.loads(droplet.check_output("docker inspect stray-stray-1"))[0]
        yield Stray(inspected["NetworkSettings"]["Networks"]["stray_default"]["IPAddress"])
    finally:
        droplet.check_output(f"{compose} down && rm {STRAY}")


@contextmanager
def addresses_of_one_network(attacker: Host, droplet: Host, many: int) -> Iterator[list[str]]:
    """Give the attacker more addresses of its /64 during the context.

    Each customer of a provider has 2^64 addresses.
    """
    device = attacker.check_output(f"ip -6 -o route get {machine_of(droplet).ipv6} | sed 's/.* dev \\([^ ]*\\).*/\\1/'")
    own = [str(NETWORK6[0xF000 + number]) for number in range(many)]
    each = f"for one in {' '.join(own)}; do ip -6 address %s $one/128 dev {device} %s; done"
    attacker.check_output(each % ("add", "nodad"))
    try:
        yield own
    finally:
        attacker.run(each % ("del", ""))
