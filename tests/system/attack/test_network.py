"""A neighbour attacks below HTTP. The neighbour tries ports and sends hand-made packets that need no route."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host

from tests.lab.layout import DROPLETS
from tests.support.environment import Environment
from tests.support.ports import INSIDE, OPEN, open_ports
from tests.support.probes import (
    CARELESS,
    DOCKER_USER_OUT,
    LOOPBACK,
    PUBLIC,
    RAW_OUT,
    Stray,
    machine_of,
    open_to,
    passed_on,
    taken_out,
)
from tests.system.attack.conftest import Serving

pytestmark = pytest.mark.group("app")

FORWARDED = "iptables -P FORWARD ACCEPT"
NOT_FORWARDED = "iptables -P FORWARD DROP"
METADATA = "169.254.169.254"
METADATA_OUT = f"iptables -t mangle -F FORWARD && iptables -D DOCKER-USER -d {METADATA}/32 -j DROP"
BEYOND_IPV6 = "fd00:dead::2"
ASK_METADATA = f"python3 -c \"import urllib.request as u; u.urlopen('http://{METADATA}/', timeout=2)\""


@pytest.mark.usefixtures("stray")
def test_port_scan(
    *, attacker: Host, droplet: Host, lab: Environment, family: str, serving: Serving, result: Callable[..., None]
) -> None:
    scan = f"-p {','.join(OPEN)},{INSIDE},{LOOPBACK}"
    for _ in serving.attacks():
        found = open_ports(attacker, lab.settings.values.domain, family, scan)
        assert found == OPEN
    with serving.defence_out():
        try:
            droplet.check_output(f"ufw disable && {DOCKER_USER_OUT}")
            undefended = open_ports(attacker, lab.settings.values.domain, family, scan)
        finally:
            droplet.check_output("ufw --force enable")
    assert undefended > OPEN
    result(f"port scan over IPv{family[1]}", got=said(found), control=said(undefended))


def test_a_port_that_docker_publishes(
    attacker: Host, droplet: Host, stray: Stray, serving: Serving, result: Callable[..., None]
) -> None:
    for _ in serving.attacks():
        assert not open_to(attacker, droplet, PUBLIC)
    with serving.defence_out(), taken_out(droplet, DOCKER_USER_OUT):
        assert open_to(attacker, droplet, PUBLIC)
    result("a port that Docker publishes", got="silence", control="connected")


def test_routing_straight_to_a_container(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Callable[..., None]
) -> None:
    """The target is the live colour's container, which publishes no port. Three layers protect the container."""
    colour = droplet.check_output("readlink /var/lib/toogoodtogo/active").removesuffix(".sock")
    address = {name: str(one) for name, one in lab.settings.values.colours.items()}[colour]
    for _ in serving.attacks():
        assert not open_to(attacker, droplet, 8080, address=address)
    with serving.defence_out():
        try:
            with taken_out(droplet, RAW_OUT, DOCKER_USER_OUT, FORWARDED):
                assert open_to(attacker, droplet, 8080, address=address)
        finally:
            droplet.check_output(NOT_FORWARDED)
    result("routing straight to the app's container", got="silence", control="connected")


@pytest.mark.parametrize("out", [[RAW_OUT], [DOCKER_USER_OUT]], ids=["without raw", "without DOCKER-USER"])
def test_each_layer_stops_what_is_routed_to_a_published_container(
    attacker: Host, droplet: Host, stray: Stray, out: list[str]
) -> None:
    with taken_out(droplet, *out):
        assert not open_to(attacker, droplet, 5432, address=stray.address)
        assert not passed_on(attacker, droplet, stray, LOOPBACK)


def test_routing_straight_to_a_published_container(
    attacker: Host, droplet: Host, stray: Stray, serving: Serving, result: Callable[..., None]
) -> None:
    for _ in serving.attacks():
        assert not open_to(attacker, droplet, 5432, address=stray.address)
    with serving.defence_out(), taken_out(droplet, RAW_OUT, DOCKER_USER_OUT):
        assert open_to(attacker, droplet, 5432, address=stray.address)
    result("routing straight to a published container", got="silence", control="connected")


def test_packets_for_a_port_published_on_loopback(
    attacker: Host, droplet: Host, stray: Stray, serving: Serving, result: Callable[..., None]
) -> None:
    """The port is published on 127.0.0.1, either explicitly or because this is Docker's default address."""
    for port in (LOOPBACK, CARELESS):
        for _ in serving.attacks():
            assert not passed_on(attacker, droplet, stray, port)
        with serving.defence_out(), taken_out(droplet, RAW_OUT, DOCKER_USER_OUT):
            assert passed_on(attacker, droplet, stray, port)
    result("for 127.0.0.1 over the wire", got="silence", control="passed on to a container")


def test_the_host_s_own_address_on_a_container_network(
    attacker: Host, droplet: Host, lab: Environment, serving: Serving, result: Callable[..., None]
) -> None:
    """SSH is open to every client, so only the raw table can tell this address from the public one."""
    address = droplet.check_output(
        f"ip -4 -o address show to {lab.settings.values.app_subnet} | sed -E 's/.* inet ([0-9.]+).*/\\1/'"
    )
    for _ in serving.attacks():
        assert not open_to(attacker, droplet, 22, address=address)
    with serving.defence_out(), taken_out(droplet, RAW_OUT):
        assert open_to(attacker, droplet, 22, address=address)
    result("SSH at the bridge's address", got="silence", control="connected")


def test_a_container_asks_for_the_droplet_s_metadata(
    droplet: Host, stray: Stray, beyond: None, serving: Serving, result: Callable[..., None]
) -> None:
    """The metadata contains cloud-init's data, which may include keys and passwords.

    Only the host may ask for the metadata.
    """
    for _ in serving.attacks():
        assert droplet.run(f"docker exec stray-stray-1 {ASK_METADATA}").rc != 0
    with serving.defence_out(), taken_out(droplet, METADATA_OUT):
        droplet.check_output(f"docker exec stray-stray-1 {ASK_METADATA}")
    result("a container asks the metadata service", got="silence", control="an answer")


def test_routing_through_the_droplet_over_ipv6(
    attacker: Host, droplet: Host, beyond: None, serving: Serving, result: Callable[..., None]
) -> None:
    """The test switches on the kernel's forwarding, as Docker would do with IPv6."""
    knock = f"timeout 2 bash -c '</dev/tcp/{BEYOND_IPV6}/80'"
    attacker.check_output(f"ip -6 route add {BEYOND_IPV6} via {machine_of(droplet).ipv6}")
    try:
        droplet.check_output("sysctl -qw net.ipv6.conf.all.forwarding=1")
        for _ in serving.attacks():
            assert attacker.run(knock).rc != 0
        with serving.defence_out():
            droplet.check_output("ip6tables -P FORWARD ACCEPT")
            attacker.check_output(knock)
    finally:
        droplet.check_output("ip6tables -P FORWARD DROP && sysctl -qw net.ipv6.conf.all.forwarding=0")
        attacker.check_output(f"ip -6 route del {BEYOND_IPV6}")
    result("routing through the droplet over IPv6", got="silence", control="connected")


@pytest.fixture
def beyond(droplet: Host) -> Iterator[None]:
    """Set up a stand-in for DigitalOcean's metadata service, which only the droplet can reach."""
    assert machine_of(droplet) in DROPLETS  # a real droplet's metadata service must not be replaced
    steps = [
        "ip netns add beyond",
        "ip link add to-beyond type veth peer name eth0 netns beyond",
        "ip address add 192.0.2.1/24 dev to-beyond",
        "ip address add fd00:dead::1/64 dev to-beyond nodad",
        "ip link set to-beyond up",
        f"ip route add {METADATA}/32 dev to-beyond",
        "ip -n beyond link set eth0 up",
        f"ip -n beyond address add {METADATA}/32 dev eth0",
        "ip -n beyond route add 192.0.2.0/24 dev eth0",
        f"ip -n beyond address add {BEYOND_IPV6}/64 dev eth0 nodad",
        "ip -n beyond route add default via fd00:dead::1",
        "systemd-run --quiet --unit=beyond --property=NetworkNamespacePath=/run/netns/beyond "
        "python3 -m http.server 80 --bind ::",
    ]
    try:
        for step in steps:
            droplet.check_output(step)
        deadline = time.monotonic() + 10
        while droplet.run(ASK_METADATA).rc:
            assert time.monotonic() < deadline, "the host itself gets no answer from the stand-in"
        yield
    finally:
        droplet.run("systemctl stop beyond; ip link del to-beyond; ip netns del beyond")


def said(ports: set[str]) -> str:
    return ", ".join(sorted(ports, key=int))
