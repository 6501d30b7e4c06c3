"""Docker Engine and the Compose plugin, from Debian's packages."""

from __future__ import annotations

import json
import re
from base64 import b64encode

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.docker import network
from deploys.operations.files import atomic_file, if_installed
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.packages import packages
from deploys.operations.units import service, systemd_units

RESTART = Handler("docker", ["dockerd --validate", "systemctl restart docker.service"])


@deploy("docker")
def docker(settings: Settings) -> None:
    _daemon(settings)
    _networks(settings)
    # The file has the form that `docker login` writes. A converge writes the file itself, so that no password is in an
    # argument list, and so that a changed password is noticed.
    atomic_file(
        name="Write the registry's login",
        dest="/root/.docker/config.json",
        content=registry_login(settings),
        mode="600",
        secret=True,
    )


def _daemon(settings: Settings) -> None:
    systemd_units(
        name="Install Docker's drop-ins: a limit for its log, and the check whether the droplet is a copy",
        units={
            f"docker.service.d/{settings.values.app}.conf": build.file("docker/journal.conf"),
            f"docker.service.d/{settings.values.app}-copy.conf": copy_drop_in(settings),
        },
        handler="docker-journal",
    )
    # Write daemon.json before installing the package, because the package starts the daemon, and the daemon must never
    # run with undeclared networks.
    daemon = atomic_file(
        name="Configure Docker",
        dest="/etc/docker/daemon.json",
        content=daemon_configuration(settings),
        notify=RESTART,
        validate=if_installed("dockerd", "dockerd --validate --config-file %s"),
    )
    packages(
        name="Install Docker and Compose",
        packages=["docker.io", "docker-cli", "docker-compose", "apparmor"],
    )
    run_handler(
        name="Restart Docker (containers keep running)",
        handler=RESTART,
        after=[daemon],
    )
    service(name="Start Docker", unit="docker.service", running=True, enabled=True)


def _networks(settings: Settings) -> None:
    values, paths = settings.values, settings.paths
    network(
        name="Create the data services' network",
        network_name=paths.docker.data_network,
        internal=True,
        subnet=str(values.data_subnet),
        ip_range=str(values.data_ip_range),
        unit=paths.units.app,
    )
    network(
        name="Create the app's network",
        network_name=paths.docker.app_network,
        subnet=str(values.app_subnet),
        ip_range=str(values.app_ip_range),
        unit=paths.units.app,
    )


def copy_drop_in(settings: Settings) -> bytes:
    """Render the drop-in that keeps Docker from starting the app on a copy."""
    return build.template("docker/copy.conf.j2", paths=settings.paths)


def daemon_configuration(settings: Settings) -> bytes:
    """Render daemon.json."""
    return build.template("docker/daemon.json.j2", values=settings.values)


def registry_login(settings: Settings) -> bytes:
    """Render Docker's config.json with the login for the registry."""
    login = f"{settings.values.registry_user}:{settings.credentials.registry_password}"
    auth = b64encode(login.encode()).decode()
    return json.dumps({"auths": {_registry(settings.values.app_repository): {"auth": auth}}}, indent=2).encode() + b"\n"


def _registry(repository: str) -> str:
    """Return the name under which config.json lists the registry of an image repository."""
    host, slash, _ = repository.partition("/")
    of_docker_hub = not slash or not re.search(r"[.:]|^localhost$", host) or host == "docker.io"
    return "https://index.docker.io/v1/" if of_docker_hub else host
