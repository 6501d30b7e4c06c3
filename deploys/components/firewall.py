"""ufw: deny what comes in, but for SSH and the web. Docker's ports bypass it, so Docker publishes none."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import systemd

from deploys.operations import packages, ufw
from deploys.settings import Settings

OPEN = ["22/tcp", "80/tcp", "443/tcp"]


@deploy("firewall")
def firewall(settings: Settings) -> None:  # noqa: ARG001 - every component takes settings
    packages.installed(name="Install ufw", packages=["ufw"])
    ufw.in_force(
        name="Let SSH, HTTP and HTTPS in, and nothing else",
        allow=OPEN,
        policies={"incoming": "deny", "outgoing": "allow", "routed": "deny"},
    )
    systemd.service(name="Raise the firewall at boot", service="ufw.service", running=True, enabled=True)
