"""Docker's networks are created and Compose projects are started as declared."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from deploys.facts.docker import ComposeServices, DockerNetworks, Network
from deploys.operations.docker import compose_up, network
from stackctl.services import docker
from tests.support.operations import commands

RUNNING = docker.Container("f1", "postgres:17.11-trixie", "running", "healthy", 0, 0, {"app.sha256": "1"})
UP: dict[str, Any] = {
    "project": "app-data",
    "file": "/opt/app/data.yaml",
    "images": {"postgres": "postgres:17.11-trixie"},
    "label": "app.sha256",
    "sha256": "1",
}


def test_a_project_as_declared_is_left_alone() -> None:
    assert commands(compose_up, {ComposeServices: {"postgres": RUNNING}}, **UP) == []


@pytest.mark.parametrize(
    "there",
    [
        {},
        {"postgres": replace(RUNNING, image="postgres:16.1-trixie")},
        {"postgres": replace(RUNNING, state="exited")},
        {"postgres": replace(RUNNING, health="unhealthy")},
        {"postgres": replace(RUNNING, health=None)},
        {"postgres": replace(RUNNING, labels={"app.sha256": "2"})},
        {"postgres": replace(RUNNING, labels={})},
    ],
)
def test_a_project_that_differs_is_brought_up(there: dict[str, docker.Container]) -> None:
    (up,) = commands(compose_up, {ComposeServices: there}, **UP)
    assert "--project-name app-data --file /opt/app/data.yaml up --detach" in up
    assert up.endswith(" postgres")
    assert "--force-recreate" in up


DATA = Network(internal=True, subnet="172.30.2.0/24", ip_range="172.30.2.128/25")


def test_a_network_is_made_once() -> None:
    arguments: dict[str, Any] = {"network_name": "app-data", "unit": "app.service", **asdict(DATA)}
    assert commands(network, {DockerNetworks: {"app-data": DATA}}, **arguments) == []
    (create,) = commands(network, {DockerNetworks: {}}, **arguments)
    assert create == "docker network create --subnet 172.30.2.0/24 --ip-range 172.30.2.128/25 --internal app-data"


@pytest.mark.parametrize("wanted", [{"internal": False}, {"subnet": "172.30.1.0/24"}, {"ip_range": "172.30.2.0/25"}])
def test_a_network_that_differs_is_refused_with_the_remedy(wanted: dict[str, Any]) -> None:
    arguments = {"network_name": "app-data", "unit": "app.service", **asdict(DATA), **wanted}
    (refused,) = commands(network, {DockerNetworks: {"app-data": DATA}}, **arguments)
    assert "systemctl stop app.service, docker network rm app-data" in refused
    assert refused.endswith("false")
