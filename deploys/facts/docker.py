"""What Docker runs, as far as the site compares it with what should run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand


@dataclass(frozen=True)
class Service:
    """A service of a Compose project. `health` is "none" where the image has no check."""

    image: str
    state: str
    health: str
    labels: dict[str, str]


class ComposeServices(FactBase[dict[str, Service]]):
    """The containers of a Compose project by service name."""

    default = dict

    def requires_command(self, project: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, project: str) -> StringCommand:
        label = QuoteString(f"label=com.docker.compose.project={project}")
        return StringCommand("docker ps -aq --filter", label, "| xargs -r docker inspect")

    def process(self, output: Iterable[str]) -> dict[str, Service]:
        containers = json.loads("".join(output) or "[]")
        return {one["Config"]["Labels"]["com.docker.compose.service"]: _service(one) for one in containers}


def _service(container: dict) -> Service:  # type: ignore[type-arg]  # docker's JSON
    state = container["State"]
    return Service(
        image=container["Config"]["Image"],
        state=state["Status"],
        health=state.get("Health", {}).get("Status", "none"),
        labels=container["Config"]["Labels"],
    )


@dataclass(frozen=True)
class Network:
    """A bridge network; `ip_range` is empty where Docker hands out the whole subnet."""

    internal: bool
    subnet: str
    ip_range: str

    def __str__(self) -> str:
        way_out = "internal" if self.internal else "with a way out"
        return f"{way_out}, {self.subnet} {self.ip_range}".strip()


class DockerNetworks(FactBase[dict[str, Network]]):
    """The bridge networks that Docker knows, by name."""

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
