"""The world reaches only ports 22, 80 and 443, over IPv4 and IPv6, even if Docker publishes other ports. CIS Debian 4.

tests/system/faults/defences/test_firewall.py restarts ufw, Docker and the droplet.
"""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest
from testinfra.host import Host

from deploys.components.firewall import after_rules
from deploys.facts.ufw import Ufw, parse
from tests.support.environment import Environment
from tests.support.ports import INSIDE, OPEN, open_ports

pytestmark = pytest.mark.group("everywhere")


def test_ufw_denies_by_default(droplet: Host) -> None:
    status = droplet.check_output("ufw status verbose")
    assert "Status: active" in status
    assert "Default: deny (incoming), allow (outgoing), deny (routed)" in status
    allowed = {line.split("/")[0] for line in status.splitlines() if "ALLOW IN" in line}
    assert allowed == OPEN


def test_ssh_is_open_to_the_addresses_in_group_data(droplet: Host, env: Environment) -> None:
    status = droplet.check_output("ufw status")
    sources = {re.sub(r".*ALLOW\s+(\S+).*", r"\1", line) for line in status.splitlines() if line.startswith("22/tcp")}
    named = env.settings.values.sshd_allowed_from
    assert {ip_network(one) for one in sources - {"Anywhere"}} == set(named)
    assert ("Anywhere" in sources) == (not named)


def test_ufw_starts_at_boot(droplet: Host) -> None:
    assert droplet.service("ufw.service").is_enabled


def test_the_kernel_has_the_declared_rules(droplet: Host, env: Environment) -> None:
    """The kernel has loaded the rules. Our DROP makes Docker's RETURN at the end of DOCKER-USER unreachable."""
    chains = ("raw -S PREROUTING", "mangle -S FORWARD", "filter -S DOCKER-USER")
    loaded = droplet.check_output("; ".join(f"iptables -t {chain}" for chain in chains)).splitlines()
    ours = ("-A PREROUTING ", "-A FORWARD ", "-A DOCKER-USER ")
    declared = [line for line in after_rules(env.settings).decode().splitlines() if line.startswith(ours)]
    assert [line for line in loaded if line.startswith(ours) and line != "-A DOCKER-USER -j RETURN"] == declared
    assert declared[-1] == "-A DOCKER-USER -j DROP"
    # A comparison with the template alone would not notice a wrong template.
    for chain in ("FORWARD", "DOCKER-USER"):
        assert loaded.count(f"-A {chain} -d 169.254.169.254/32 -j DROP") == 1
        assert f"-A {chain} -j DROP" in loaded
    assert "-A PREROUTING -d 127.0.0.0/8 -j DROP" in loaded


def test_the_kernel_has_the_rules_of_ufw_s_files_and_admits_nothing_else(droplet: Host) -> None:
    """The loaded rules equal the rules in ufw's files. A converge makes the same comparison (facts/ufw.py)."""
    there = parse(droplet.check_output(Ufw().command()).splitlines())
    assert there.active
    assert there.loaded == there.declared


@pytest.mark.group("app")
def test_docker_consults_our_chain_before_it_admits_a_packet(droplet: Host) -> None:
    """In the chain FORWARD, only Docker's rules for traffic between bridges may come before the jump to DOCKER-USER."""
    forward = droplet.check_output("iptables -S FORWARD").splitlines()
    first = next(line for line in forward if line.startswith("-A") and "DOCKER-ISOLATION" not in line)
    assert first == "-A FORWARD -j DOCKER-USER"
    isolation = droplet.check_output("iptables -S DOCKER-ISOLATION-STAGE-1; iptables -S DOCKER-ISOLATION-STAGE-2")
    assert "-j ACCEPT" not in isolation


def test_no_unrequested_packet_is_forwarded(droplet: Host) -> None:
    assert "-P FORWARD DROP" in droplet.check_output("iptables -S FORWARD")
    assert "-P FORWARD DROP" in droplet.check_output("ip6tables -S FORWARD")
    assert "ACCEPT" not in droplet.check_output("ip6tables -S ufw6-user-forward")


@pytest.mark.group("app")
def test_docker_uses_no_ipv6(droplet: Host) -> None:
    """Docker 26.1 makes no rules for IPv6, so a network with IPv6 would expose its containers."""
    networks = droplet.check_output(
        "docker network ls --quiet | xargs docker network inspect --format '{{.EnableIPv6}}'"
    )
    assert set(networks.split()) == {"false"}


def test_from_outside_only_three_ports_answer(outside: Host, env: Environment, family: str) -> None:
    """Scan every port in the lab. In other environments, scan only the ports that a mistake could open."""
    domain = env.settings.values.domain
    assert open_ports(outside, domain, family, f"-p 22,80,443,{INSIDE}") == OPEN
    if env.in_lab:
        assert open_ports(outside, domain, family, "-p- --min-rate 50000 --max-retries 0") <= OPEN
