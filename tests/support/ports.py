"""The open ports of a droplet, found by nmap."""

from __future__ import annotations

import re

from testinfra.host import Host

OPEN = {"22", "80", "443"}


INSIDE = "5432,6379,8080,2375,2376,9090,9100,5000,111,25"
"""Ports that a mistake could open: databases, the app, Docker, metrics."""


def open_ports(outside: Host, domain: str, family: str, options: str) -> set[str]:
    flag = "-6" if family == "-6" else ""
    return set(re.findall(r"(\d+)/open/", outside.check_output(f"nmap {flag} -Pn -n -T5 {options} -oG - {domain}")))
