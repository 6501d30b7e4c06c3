"""The app: its Compose files, the app environment for the next release, the colours' sockets, and the start at boot.

The site does not declare the image's tag, because only a release sets the tag.
"""

from __future__ import annotations

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import APP_PORT, STOP_GRACE_S
from deploys.operations.docker import compose_accepts
from deploys.operations.files import atomic_file
from deploys.operations.release import current_release
from deploys.operations.units import service, systemd_units
from stackctl.app.app_env import PREVIOUS_SECRET, canonical


@deploy("app")
def app(settings: Settings) -> None:
    paths = settings.paths

    for path, content in host.loop(compose_files(settings).items()):
        atomic_file(
            name=f"Write {path.name}",
            dest=str(path),
            content=content,
            validate=compose_accepts(
                STACK_IMAGE="i", STACK_SHA256="s", STACK_RELEASE="r", STACK_ADDRESS=str(settings.values.colours["blue"])
            ),
        )
    if not settings.values.app_worker:
        files.file(name="Remove worker.yaml", path=str(paths.worker_yaml), present=False)
    atomic_file(
        name="Write the app environment for the next release",
        dest=str(paths.next_environment),
        content=canonical(settings.app_environment()),
        mode="600",
        secret=True,
    )

    systemd_units(name="Install the stack's units", units=units(settings), handler="units", restart=_ways(settings))
    # Release the app before starting the stack, because an app that is unhealthy with its old app environment may start
    # with the declared app environment.
    current_release(
        name="Release the live tag again if it does not run as declared",
        compose_files=b"".join(compose_files(settings).values()),
        environment=canonical(settings.app_environment()),
        worker=settings.values.app_worker and not settings.isolated,
    )
    service(
        name="Start the stack now and at boot",
        unit=paths.units.app,
        running=True,
        enabled=True,
    )


def compose_files(settings: Settings) -> dict[Path, bytes]:
    """Render app.yaml, and worker.yaml if there is a worker. The Compose files contain no secrets."""
    values, paths = settings.values, settings.paths
    telegram = [PREVIOUS_SECRET] if values.webhook_path else []
    return {
        path: build.template(
            f"app/{path.name}.j2",
            values=values,
            paths=paths,
            names=sorted([*settings.app_environment(), *telegram]),
            stop_grace_s=STOP_GRACE_S,
        )
        for path in ([paths.app_yaml, paths.worker_yaml] if values.app_worker else [paths.app_yaml])
    }


def units(settings: Settings) -> dict[str, bytes]:
    """Return the content of each systemd unit, by the unit's name."""
    paths = settings.paths
    found = {
        paths.units.app: build.template(
            "app/stack.service.j2", paths=paths, values=settings.values, ways=_ways(settings)
        )
    }
    for colour, address in settings.values.colours.items():
        found[paths.units.socket(colour)] = build.template("app/colour.socket.j2", paths=paths, colour=colour)
        found[paths.units.proxy(colour)] = build.template(
            "app/colour.service.j2", paths=paths, colour=colour, address=address, port=APP_PORT
        )
    return found


def _ways(settings: Settings) -> list[str]:
    """Return the sockets and proxies through which nginx reaches the containers."""
    paths = settings.paths
    return [
        unit for colour in settings.values.colours for unit in (paths.units.socket(colour), paths.units.proxy(colour))
    ]
