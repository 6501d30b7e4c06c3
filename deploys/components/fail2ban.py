"""fail2ban, which temporarily bans addresses that guess SSH logins, or that send many requests that nginx refuses."""

from __future__ import annotations

from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.files import atomic_file, if_installed
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.packages import packages
from deploys.operations.units import service

TELEGRAM = ("149.154.160.0/20", "91.108.4.0/22")
"""Telegram's networks. fail2ban never bans them, so a mistake in webhook_allowed_from cannot cut off the bot."""

# Restart fail2ban, because a reload would drop a new action (fail2ban 1.1, Actions.reload), and a jail without an
# action would ban nobody.
RESTART = Handler("bans", ["fail2ban-client --test", "systemctl restart fail2ban.service"])


@deploy("fail2ban")
def fail2ban(settings: Settings) -> None:
    placed = [
        atomic_file(
            name=f"Configure fail2ban: {name}",
            dest=f"/etc/fail2ban/{name}",
            content=content,
            notify=RESTART,
            validate=if_installed("fail2ban-client", _test(name)),
        )
        for name, content in host.loop(configuration(settings, edge="edge" in host.groups).items())
    ]
    # Install the package after writing the configuration, because the package starts fail2ban, and Debian's own jail
    # might ban an operator. fail2ban needs python3-systemd to read the journal, and nft from nftables.
    packages(name="Install fail2ban", packages=["fail2ban", "python3-systemd", "nftables"])
    run_handler(
        name="Restart fail2ban if its configuration is valid (bans stay)",
        handler=RESTART,
        after=placed,
    )
    service(name="Start fail2ban", unit="fail2ban.service", running=True, enabled=True)


def _test(name: str) -> str:
    """Return the test of a configuration file.

    The test copies /etc/fail2ban and puts the new file into the copy, because fail2ban can only test a whole directory.
    """
    folder = "d=$(mktemp -d) && trap 'rm -r $d' EXIT && cp -r /etc/fail2ban/. $d"
    return f"{folder} && mkdir -p $d/{PurePosixPath(name).parent} && cp %s $d/{name} && fail2ban-client -c $d --test"


def configuration(settings: Settings, *, edge: bool) -> dict[str, bytes]:
    """Render fail2ban's files.

    The files are returned by their paths in /etc/fail2ban. `edge` means that nginx is on this host.
    """
    values, app = settings.values, settings.values.app
    # Never ban containers, because a ban would also drop a container's answers to nginx.
    ours = [*values.docker_networks.values(), *values.exempt_addresses, *values.webhook_allowed_from]
    never = dict.fromkeys([*TELEGRAM, *map(str, ours)])
    # The file with the jails comes last, because the jails refer to the other files.
    return {
        "fail2ban.local": build.file("fail2ban/fail2ban.conf"),
        f"filter.d/{app}-refusals.conf": build.file("fail2ban/refusals.conf"),
        f"filter.d/{app}-floods.conf": build.file("fail2ban/floods.conf"),
        f"action.d/{app}-nftables.conf": build.template(
            "fail2ban/action.conf.j2", app=app, spared=["::1", *(one for one in never if ":" in one)]
        ),
        "jail.local": build.template(
            "fail2ban/jail.conf.j2",
            never=never,
            action=f"{app}-nftables",
            filter=f"{app}-refusals",
            floods=f"{app}-floods",
            refused_log=settings.paths.refused_log if edge else None,
        ),
    }
