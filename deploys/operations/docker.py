"""Networks and Compose projects, changed only when what runs differs from what is declared."""

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
    """A bridge network of the site's own, which `unit` uses. pyinfra's docker.network cannot make one internal."""
    there = host.get_fact(DockerNetworks).get(network_name)
    if there and (there.internal, there.subnet, there.ip_range) == (internal, subnet, ip_range):
        host.noop(f"{network_name} is there")
        return
    if there:
        cause = f"{network_name} is {there}, which Docker cannot change"
        remedy = f"systemctl stop {unit}, docker network rm {network_name}, converge again"
        yield StringCommand("echo", QuoteString(f"{cause}: {remedy}"), ">&2; false")
        return
    options = ["--subnet", subnet, "--ip-range", ip_range, *(["--internal"] if internal else [])]
    yield StringCommand("docker network create", *options, QuoteString(network_name))


def compose_accepts(**environment: str) -> str:
    """The test of a Compose file, with what its variables are to be (`validate` of atomic_file)."""
    given = [f"{name}={value}" for name, value in environment.items()]
    return " ".join([*given, "docker compose --env-file /dev/null --profile '*' -f %s config --quiet"])


@operation()
def compose_up(project: str, file: str, *, images: Mapping[str, str], label: str, sha256: str) -> Commands:
    """Brings a Compose project up and waits for its health, when a service is not as declared.

    + images: image by service
    + label, sha256: what each container bears when it was made from the declared inputs. Compose's own hash leaves out
      mounted files and environment files (docs/adr/0004-one-compose-project-per-colour.md).
    """
    there = host.get_fact(ComposeServices, project=project)
    wrong = [name for name, image in images.items() if not _as_declared(there.get(name), image, label, sha256)]
    if not wrong:
        host.noop(f"{project} runs as declared")
        return
    # Compose leaves alone what runs unchanged, be it unhealthy.
    anew = ("--detach", "--no-deps", "--force-recreate", "--wait", "--wait-timeout", "180", "--quiet-pull")
    yield StringCommand(*map(QuoteString, compose(project, Path(file), "up", *anew, *wrong)))


def _as_declared(service: Container | None, image: str, label: str, sha256: str) -> bool:
    return (
        service is not None
        and service.image == image
        and service.state == "running"
        and service.health in {"healthy", "starting"}
        and service.labels.get(label) == sha256
    )
