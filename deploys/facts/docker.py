"""Facts about Docker's containers and networks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand

from stackctl.services.docker import CONTAINER_FORMAT, PROJECT_LABEL, Container


class ComposeServices(FactBase[dict[str, Container]]):
    """The containers of a Compose project, by the name of the service."""

    default = dict

    def requires_command(self, project: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, project: str) -> StringCommand:
        label = QuoteString(f"label={PROJECT_LABEL}={project}")
        inspect = "| xargs -r docker container inspect --format"
        return StringCommand("docker ps -aq --filter", label, inspect, QuoteString(CONTAINER_FORMAT))

    def process(self, output: Iterable[str]) -> dict[str, Container]:
        return {one.service: one for one in map(Container.read, output)}


@dataclass(frozen=True)
class Network:
    """A bridge network. `ip_range` is empty if Docker assigns addresses from the whole subnet."""

    internal: bool
    subnet: str
    ip_range: str

    def __str__(self) -> str:
        reach = "internal" if self.internal else "not internal"
        return f"{reach}, {self.subnet} {self.ip_range}".strip()


class DockerNetworks(FactBase[dict[str, Network]]):
    """Docker's bridge networks by name."""

    default = dict

    def requires_command(self) -> str:
        return "docker"

    def command(self) -> str:
        return "docker network ls --quiet --filter driver=bridge | xargs -r docker network inspect"

    def process(self, output: Iterable[str]) -> dict[str, Network]:
        return {one["Name"]: _network(one) for one in json.loads("".join(output) or "[]")}


def _network(inspected: dict) -> Network:  # type: ignore[type-arg]  # docker's JSON
    pool = inspected["IPAM"]["Config"][0]
    return Network(inspected["Internal"], pool["Subnet"], pool.get("IPRange", ""))
