"""Operations for Docker's networks and Compose projects. The operations change nothing that is already as declared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts.docker import ComposeServices, DockerNetworks
from deploys.operations import Commands
from stackctl.services.compose import compose
from stackctl.services.docker import Container


@operation()
def network(network_name: str, *, subnet: str, ip_range: str, internal: bool = False, unit: str) -> Commands:
    """Create a bridge network that `unit` uses. pyinfra's docker.network can't create an internal network."""
    there = host.get_fact(DockerNetworks).get(network_name)
    if there and (there.internal, there.subnet, there.ip_range) == (internal, subnet, ip_range):
        host.noop(f"{network_name} exists")
        return
    if there:
        cause = f"{network_name} is {there}, and Docker can't change a network"
        remedy = f"systemctl stop {unit}, docker network rm {network_name}, make site"
        yield StringCommand("echo", QuoteString(f"{cause}. Next: {remedy}"), ">&2; false")
        return
    options = ["--subnet", subnet, "--ip-range", ip_range, *(["--internal"] if internal else [])]
    yield StringCommand("docker network create", *options, QuoteString(network_name))


def compose_accepts(**environment: str) -> str:
    """Return a command for `validate` of atomic_file that tests a Compose file with the variables in `environment`."""
    given = [f"{name}={value}" for name, value in environment.items()]
    return " ".join([*given, "docker compose --env-file /dev/null --profile '*' -f %s config --quiet"])


@operation()
def compose_up(project: str, file: str, *, images: Mapping[str, str], label: str, sha256: str) -> Commands:
    """Recreate the services of a Compose project that are not as declared, and wait until these services are healthy.

    + images: the image of each service
    + label, sha256: a label and its value. A container with this label and value was created from the declared inputs.
      Compose's own hash is not enough, because it leaves out mounted files and environment files
      (docs/adr/0004-one-compose-project-per-colour.md).
    """
    there = host.get_fact(ComposeServices, project=project)
    wrong = [name for name, image in images.items() if not _as_declared(there.get(name), image, label, sha256)]
    if not wrong:
        host.noop(f"{project} runs as declared")
        return
    # Without --force-recreate, Compose would keep an unchanged container, even if the container is unhealthy.
    options = ("--detach", "--no-deps", "--force-recreate", "--wait", "--wait-timeout", "180", "--quiet-pull")
    yield StringCommand(*map(QuoteString, compose(project, Path(file), "up", *options, *wrong)))


def _as_declared(service: Container | None, image: str, label: str, sha256: str) -> bool:
    return (
        service is not None
        and service.image == image
        and service.state == "running"
        and service.health in {"healthy", "starting"}
        and service.labels.get(label) == sha256
    )
