"""Docker Engine is configured as declared and publishes no port, and only root can control Docker.

CIS Docker 2.2, 2.14, 2.18.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

import pytest
from testinfra.host import Host

from tests.support.environment import Environment

pytestmark = pytest.mark.group("app")


def test_the_docker_daemon_uses_its_configuration(droplet: Host, env: Environment) -> None:
    info = json.loads(droplet.check_output("docker info --format '{{json .}}'"))
    assert info["LoggingDriver"] == "local"
    assert info["LiveRestoreEnabled"] is True
    assert [pool["Base"] for pool in info["DefaultAddressPools"]] == [str(env.settings.values.docker_pool)]
    assert "name=no-new-privileges" in info["SecurityOptions"]


def test_a_container_s_log_is_limited_and_not_in_the_journal(droplet: Host) -> None:
    """Check every container, because a container keeps the log driver with which it was created.

    tests/system/attack floods a log.
    """
    shown = "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}"
    drivers = droplet.check_output(f"docker ps --quiet | xargs docker inspect --format '{shown}'").splitlines()
    assert set(drivers) == {'local {"max-file":"5","max-size":"10m"}'}
    limits = droplet.check_output("systemctl show -p LogRateLimitBurst -p LogRateLimitIntervalUSec docker.service")
    assert set(limits.splitlines()) == {"LogRateLimitBurst=60", "LogRateLimitIntervalUSec=1min"}


def test_compose_is_the_plugin_of_docker(droplet: Host) -> None:
    assert droplet.check_output("docker compose version --short").lstrip("v").startswith("2.")


def test_no_container_publishes_a_port(droplet: Host) -> None:
    assert "->" not in droplet.check_output("docker ps --format '{{.Ports}}'")


def test_a_careless_port_would_be_bound_to_loopback(droplet: Host) -> None:
    """On a droplet, Docker publishes ports on the loopback by default, so `ports: [5432:5432]` does no harm."""
    daemon = json.loads(droplet.file("/etc/docker/daemon.json").content_string)
    assert daemon["ip"] == "127.0.0.1"
    options = daemon["default-network-opts"]["bridge"]
    assert options == {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}


def test_nobody_is_in_group_docker(droplet: Host) -> None:
    """The group docker has no members, because a member is as powerful as root."""
    assert droplet.check_output("getent group docker").endswith(":")


def test_only_root_can_read_the_registry_s_login(droplet: Host) -> None:
    login = droplet.file("/root/.docker/config.json")
    assert (login.mode, login.user) == (0o600, "root")


def test_networks(droplet: Host, env: Environment) -> None:
    paths, values = env.settings.paths, env.settings.values
    declared = {
        paths.docker.app_network: (False, values.app_subnet, values.app_ip_range),
        paths.docker.data_network: (True, values.data_subnet, values.data_ip_range),
    }
    for name, wanted in declared.items():
        there = json.loads(droplet.check_output(f"docker network inspect {name}"))[0]
        ranges = there["IPAM"]["Config"][0]
        assert (there["Internal"], IPv4Network(ranges["Subnet"]), IPv4Network(ranges["IPRange"])) == wanted
