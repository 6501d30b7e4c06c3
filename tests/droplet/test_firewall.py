"""What the world can reach: 22, 80 and 443, over IPv4 and IPv6."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("everywhere")

OPEN = {"22", "80", "443"}
INSIDE = "5432,6379,8080,2375,2376,9090,9100,5000,111,25"
"""Ports that a mistake would open: databases, the app, Docker, metrics."""


def test_ufw_denies_by_default(droplet: Host) -> None:
    status = droplet.check_output("ufw status verbose")
    assert "Status: active" in status
    assert "Default: deny (incoming), allow (outgoing), deny (routed)" in status
    allowed = {line.split("/")[0] for line in status.splitlines() if "ALLOW IN" in line}
    assert allowed == OPEN


def test_ufw_comes_up_at_boot(droplet: Host) -> None:
    assert droplet.service("ufw.service").is_enabled
    assert "ENABLED=yes" in droplet.file("/etc/ufw/ufw.conf").content_string


def test_from_outside_only_three_ports_answer(outside: Host, place: Place, family: str) -> None:
    """The lab is asked for every port besides; any other place only for the ones that a mistake would open."""
    domain = place.settings.values.domain
    assert open_ports(outside, domain, family, f"-p 22,80,443,{INSIDE}") == OPEN
    if place.name == "lab":
        assert open_ports(outside, domain, family, "-p- --min-rate 50000 --max-retries 0") <= OPEN


def open_ports(outside: Host, domain: str, family: str, options: str) -> set[str]:
    flag = "-6" if family == "-6" else ""
    return set(re.findall(r"(\d+)/open/", outside.check_output(f"nmap {flag} -Pn -n -T5 {options} -oG - {domain}")))
