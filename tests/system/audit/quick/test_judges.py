"""Tests with the judges ssh-audit, gixy and systemd, which need only seconds and are part of `make test`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.system.audit.conftest import Verdict
from tests.system.audit.judges import bad

PROGRAMS = Path(sys.executable).parent
EXPOSURE = 3.0
"""The highest accepted exposure, on systemd's scale from 0 (closed) to 10 (open)."""


@pytest.mark.group("everywhere")
def test_ssh_audit_passes(droplet: Host, env: Environment, verdict: Verdict) -> None:
    """ssh-audit reports no warning and no failure for any algorithm."""
    found = ssh_audit(*address(env, droplet.backend.get_hostname()))
    complaints = {
        f"{kind} {one['algorithm']}" for kind in ("kex", "key", "enc", "mac") for one in found[kind] if bad(one)
    }
    offered = sum(len(found[kind]) for kind in ("kex", "key", "enc", "mac"))
    verdict("ssh-audit", complaints, figure=f"{len(complaints)} of {offered} algorithms complained of", goal="0")


def address(env: Environment, host: str) -> tuple[str, str]:
    """Return the address and port of a host of the inventory, because ssh-audit reads no ssh_config."""
    command = ["ssh", "-F", env.data["ssh_config_file"], "-G", host]
    settings = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = dict(line.split(" ", 1) for line in settings.splitlines() if " " in line)
    return options["hostname"], options["port"]


def ssh_audit(host: str, port: str) -> dict[str, Any]:
    """Run ssh-audit without its rate test, which opens connections until sshd refuses its sender, the operator."""
    command = [str(PROGRAMS / "ssh-audit"), "--json", "--skip-rate-test", "--port", port, host]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.group("edge")
def test_gixy_finds_nothing(droplet: Host, verdict: Verdict) -> None:
    configuration = droplet.file("/etc/nginx/nginx.conf").content_string
    found = gixy(configuration)
    verdict("gixy", {one["plugin"] for one in found}, figure=f"{len(found)} findings", goal="0")


def gixy(configuration: str) -> list[dict[str, Any]]:
    command = [str(PROGRAMS / "gixy"), "--disable-includes", "--format", "json", "-"]
    done = subprocess.run(command, input=configuration, capture_output=True, text=True, check=False)
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return findings


def test_gixy_would_find_something() -> None:
    """Control: gixy reports a location that gives access outside its directory."""
    open_alias = "http { server { server_name a.test; location /files { alias /srv/files/; } } }"
    assert {one["plugin"] for one in gixy(open_alias)} >= {"alias_traversal"}


@pytest.mark.group("everywhere")
def test_units_are_closed(droplet: Host, env: Environment, verdict: Verdict) -> None:
    """`systemd-analyze security` judges the units that we wrote and those that face the internet."""
    exposed = {unit: exposure(droplet, unit) for unit in units(droplet, env)}
    assert exposed, "no unit was found"
    app = env.settings.values.app
    open_ones = {re.sub(rf"^{app}\b", "APP", unit) for unit, level in exposed.items() if level > EXPOSURE}
    rest = [level for unit, level in exposed.items() if re.sub(rf"^{app}\b", "APP", unit) not in open_ones]
    worst = max(rest, default=0.0)
    verdict(
        "systemd-analyze",
        open_ones,
        figure=f"{len(rest)} of {len(exposed)} units ≤ {EXPOSURE}, the worst {worst}",
        goal="all, or waived",
    )


def units(droplet: Host, env: Environment) -> list[str]:
    """Return our own units, and the services that our configuration restricts."""
    ours = droplet.check_output(
        f"find /etc/systemd/system -maxdepth 1 -name '{env.settings.values.app}*.service' -printf '%f\\n'"
    )
    named = [unit for unit in ("nginx.service", "certbot.service", "fail2ban.service") if droplet.service(unit).exists]
    return [re.sub(r"@\.service$", "@audit.service", unit) for unit in (*ours.splitlines(), *named)]


def exposure(droplet: Host, unit: str) -> float:
    said = droplet.check_output(f"systemd-analyze security --no-pager {unit}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])
