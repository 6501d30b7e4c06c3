"""The bot: its Compose file, its next environment, a socket a colour, and boot. The tag comes only from a release."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import systemd
from stackctl.environment import canonical

from deploys import artifacts
from deploys.operations.files import place
from deploys.operations.owed import settle
from deploys.operations.release import released_as_declared
from deploys.settings import APP_PORT, STOP_GRACE_S, Settings


@deploy("app")
def app(settings: Settings) -> None:
    paths = settings.paths

    place(
        name="Describe the app in a colour",
        dest=str(paths.app_yaml),
        content=compose_file(settings),
    )
    place(
        name="Place the app's next environment",
        dest=str(paths.next_environment),
        content=canonical(settings.app_environment()),
        mode="600",
        secret=True,
    )

    debt = settings.owed("units")
    placed = [
        place(name=f"Install {name}", dest=f"/etc/systemd/system/{name}", content=content, owes=debt)
        for name, content in host.loop(units(settings).items())
    ]
    settle(
        name="Have systemd read its units",
        debt=debt,
        commands=["systemctl daemon-reload", shlex.join(["systemctl", "try-restart", *_ways(settings)])],
        after=placed,
    )
    # Before boot is asked to bring it up: what can't become healthy with its old environment can with the declared one.
    released_as_declared(
        name="Release the live tag anew, when what runs is not what is declared",
        compose_file=compose_file(settings),
        environment=canonical(settings.app_environment()),
    )
    systemd.service(
        name="Bring the stack up at boot, and down in order",
        service=paths.unit,
        running=True,
        enabled=True,
    )


def compose_file(settings: Settings) -> bytes:
    """app.yaml: the names of the app's environment stand in it, the values don't."""
    return artifacts.template(
        "app/app.yaml.j2",
        values=settings.values,
        paths=settings.paths,
        names=sorted(settings.app_environment()),
        stop_grace_s=STOP_GRACE_S,
    )


def units(settings: Settings) -> dict[str, bytes]:
    """systemd's units by name."""
    paths = settings.paths
    found = {
        paths.unit: artifacts.template(
            "app/stack.service.j2", paths=paths, values=settings.values, ways=_ways(settings)
        )
    }
    for colour, address in settings.values.colours.items():
        found[paths.socket_unit(colour)] = artifacts.template("app/colour.socket.j2", paths=paths, colour=colour)
        found[paths.proxy_unit(colour)] = artifacts.template(
            "app/colour.service.j2", paths=paths, colour=colour, address=address, port=APP_PORT
        )
    return found


def _ways(settings: Settings) -> list[str]:
    """The units between nginx and the containers."""
    paths = settings.paths
    return [
        unit for colour in settings.values.colours for unit in (paths.socket_unit(colour), paths.proxy_unit(colour))
    ]
