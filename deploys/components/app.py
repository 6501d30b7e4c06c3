"""The bot: its Compose file, its next environment, a socket a colour, and boot. The tag comes only from a release."""

from __future__ import annotations

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
    values, paths = settings.values, settings.paths
    environment = settings.app_environment()

    compose = place(
        name="Describe the app in a colour",
        dest=str(paths.app_yaml),
        content=artifacts.template(
            "app/app.yaml.j2", values=values, paths=paths, names=sorted(environment), stop_grace_s=STOP_GRACE_S
        ),
    )
    next_environment = place(
        name="Place the app's next environment",
        dest=str(paths.next_environment),
        content=canonical(environment),
        mode="600",
        secret=True,
    )

    debt = settings.owed("units")
    units = [
        place(name=f"Install {name}", dest=f"/etc/systemd/system/{name}", content=content, owes=debt)
        for name, content in host.loop(_units(settings).items())
    ]
    settle(name="Have systemd read its units", debt=debt, commands=["systemctl daemon-reload"], after=units)
    systemd.service(
        name="Bring the stack up at boot, and down in order",
        service=paths.unit,
        running=True,
        enabled=True,
    )
    released_as_declared(
        name="Release the live tag anew, when what runs is not what is declared",
        environment=canonical(environment),
        after=[compose, next_environment],
    )


def _units(settings: Settings) -> dict[str, bytes]:
    paths = settings.paths
    units = {paths.unit: artifacts.template("app/stack.service.j2", paths=paths)}
    for colour, address in settings.values.colours.items():
        units[paths.socket_unit(colour)] = artifacts.template("app/colour.socket.j2", paths=paths, colour=colour)
        units[paths.proxy_unit(colour)] = artifacts.template(
            "app/colour.service.j2", paths=paths, colour=colour, address=address, port=APP_PORT
        )
    return units
