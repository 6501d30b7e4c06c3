"""Firewall: only SSH and the web are open, even if Docker publishes a port (docs/explanation/security.md).

The site publishes no port of a container. If somebody publishes a port by mistake, the port bypasses ufw's own rules,
but not the site's rules in after.rules.
"""

from __future__ import annotations

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations import ufw
from deploys.operations.packages import packages
from deploys.operations.units import service

WEB = ["80/tcp", "443/tcp"]


@deploy("firewall")
def firewall(settings: Settings) -> None:
    packages(name="Install ufw", packages=["ufw"])
    ufw.rules(
        name="Allow only SSH, HTTP and HTTPS",
        allow=[*ssh_rules(settings), *WEB],
        # No container needs forwarded IPv6 packets, because Docker's networks have no IPv6.
        policies={"incoming": "deny", "outgoing": "allow", "routed": "deny"},
        after=after_rules(settings),
    )
    service(name="Start the firewall at boot", unit="ufw.service", running=True, enabled=True)


def ssh_rules(settings: Settings) -> list[str]:
    """Return the rules for port 22 in the form that ufw prints. ufw prints a single address without /32."""
    sources = settings.values.sshd_allowed_from
    return [
        f"from {source.network_address if source.num_addresses == 1 else source} to any port 22 proto tcp"
        for source in sources
    ] or ["22/tcp"]


def after_rules(settings: Settings) -> bytes:
    """Render /etc/ufw/after.rules."""
    return build.template(
        "firewall/after.rules.j2",
        networks=settings.values.docker_networks.values(),
        isolated=settings.values.app_subnet if settings.isolated else None,
    )
