"""No client reaches a published database while ufw, Docker or the droplet restarts.

A stray Compose file publishes the database. Clients knock during each restart, so a moment without rules would be
noticed. Each test has a control.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab.layout import GATEWAY
from tests.support import converge
from tests.support.environment import Environment
from tests.support.probes import (
    CARELESS,
    DOCKER_USER_OUT,
    LOOPBACK,
    PUBLIC,
    RAW_OUT,
    Stray,
    knocking,
    machine_of,
    open_over_ipv6,
    open_to,
    passed_on,
    taken_out,
)

pytestmark = pytest.mark.group("app")

LISTENING = 9998


def ufw_reload(env: Environment, droplet: Host) -> None:
    droplet.check_output("ufw reload")


def docker_restart(env: Environment, droplet: Host) -> None:
    droplet.check_output("systemctl restart docker.service")


def reboot(env: Environment, droplet: Host) -> None:
    machines.reboot(machine_of(droplet))
    env.reconnect(machine_of(droplet).name).check_output("systemctl is-system-running --wait")


@pytest.mark.parametrize("event", [ufw_reload, docker_restart, reboot])
def test_nothing_is_let_in_meanwhile_nor_after(
    lab: Environment, droplet: Host, stray: Stray, event: Callable[[Environment, Host], None]
) -> None:
    attacker = lab.outside
    with knocking(attacker, droplet, PUBLIC):
        time.sleep(0.5)
        event(lab, droplet)
        droplet = lab.reconnect(machine_of(droplet).name)
        wait_for_stray(droplet, stray)
    closed(attacker, droplet, stray)
    with taken_out(droplet, RAW_OUT, DOCKER_USER_OUT):
        assert open_to(attacker, droplet, PUBLIC)
        assert open_to(attacker, droplet, 5432, address=stray.address)
        assert passed_on(attacker, droplet, stray, LOOPBACK)
    closed(attacker, droplet, stray)


OURS_OUT = f"{RAW_OUT} && iptables -t mangle -F FORWARD && iptables -I DOCKER-USER -p tcp --dport 5432 -j RETURN"
INSERTED = "iptables -I INPUT -j ACCEPT && ip6tables -I INPUT -j ACCEPT"
# Flush only INPUT. `iptables -F` would also flush Docker's chains, which connect the containers.
FLUSHED = "iptables -P INPUT ACCEPT && iptables -F INPUT && ip6tables -P INPUT ACCEPT && ip6tables -F"


@pytest.mark.parametrize(
    "change", [f"{OURS_OUT} && {INSERTED}", f"{OURS_OUT} && {FLUSHED}"], ids=["inserted", "flushed"]
)
def test_rules_that_somebody_changed_are_planned_and_mended(
    lab: Environment, droplet: Host, stray: Stray, change: str
) -> None:
    """The plan compares the loaded rules, because ufw's files are unchanged and ufw reports that it is active."""
    operation = {"firewall | Allow only SSH, HTTP and HTTPS"}
    with listening(droplet):
        assert not open_to(lab.outside, droplet, LISTENING)
        droplet.check_output(change)
        assert open_to(lab.outside, droplet, PUBLIC)
        assert open_to(lab.outside, droplet, LISTENING)
        assert open_over_ipv6(lab.outside, droplet, PUBLIC)
        assert converge.planned() == operation
        assert converge.changed(converge.site()) == operation
        assert not open_to(lab.outside, droplet, LISTENING)
    closed(lab.outside, droplet, stray)
    assert open_to(lab.outside, droplet, 443)
    assert open_over_ipv6(lab.outside, droplet, 443)
    assert converge.planned() == set()


def test_ssh_can_be_limited_to_addresses(lab: Environment, droplet: Host) -> None:
    """The test allows its own addresses, so that it does not lock itself out."""
    operation = {"firewall | Allow only SSH, HTTP and HTTPS"}
    assert open_to(lab.outside, droplet, 22)
    try:
        limited = converge.site("--data", f'sshd_allowed_from=["{GATEWAY.ipv4}", "{GATEWAY.ipv6}"]')
        assert converge.changed(limited) == operation
        assert not open_to(lab.outside, droplet, 22)
        assert not open_over_ipv6(lab.outside, droplet, 22)
        assert open_to(lab.outside, droplet, 443)
    finally:
        assert converge.changed(converge.site()) == operation
    assert open_to(lab.outside, droplet, 22)


def test_only_a_rule_of_ufw_opens_another_port_over_ipv6(lab: Environment, droplet: Host, stray: Stray) -> None:
    """Docker has no rules for IPv6. Docker's proxy listens on the port, and only ufw protects the port."""
    assert not open_over_ipv6(lab.outside, droplet, PUBLIC)
    droplet.check_output(f"ufw allow {PUBLIC}/tcp")
    try:
        assert open_over_ipv6(lab.outside, droplet, PUBLIC)
    finally:
        droplet.check_output(f"ufw delete allow {PUBLIC}/tcp")


@contextmanager
def listening(droplet: Host) -> Iterator[None]:
    """Listen on a port of the droplet itself, because packets to Docker's ports do not pass through INPUT."""
    server = f"python3 -m http.server {LISTENING}"
    droplet.check_output(f"systemd-run --collect --unit test-listening {server}")
    try:
        droplet.check_output(f"timeout 10 sh -c 'until ss -tln | grep -q :{LISTENING}; do sleep 0.1; done'")
        yield
    finally:
        droplet.check_output("systemctl stop test-listening")


def wait_for_stray(droplet: Host, stray: Stray) -> None:
    """Wait until the stray container listens. Until the container listens, a missing answer proves nothing."""
    asked = f"timeout 1 bash -c '</dev/tcp/{stray.address}/5432'"
    for _ in range(60):
        if droplet.run(asked).rc == 0:
            return
        time.sleep(0.5)
    raise AssertionError("the stray container does not listen")


def closed(attacker: Host, droplet: Host, stray: Stray) -> None:
    assert not open_to(attacker, droplet, PUBLIC)
    assert not open_to(attacker, droplet, CARELESS)
    assert not open_over_ipv6(attacker, droplet, PUBLIC)
    assert not open_to(attacker, droplet, 5432, address=stray.address)
    assert not passed_on(attacker, droplet, stray, LOOPBACK)
