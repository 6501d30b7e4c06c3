"""An intruder in a container can do little.

The tests check a container's limits and try to break the limits (CIS Docker 4, 5).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.environment import Environment, contained

pytestmark = pytest.mark.group("app")

DATA_CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
"""Capabilities that the official images' entrypoints need, because they start as root and then drop privileges."""


def ours(droplet: Host) -> dict[str, Any]:
    """Return the HostConfig of every running container by its Compose service, without reading an environment."""
    service = '{{json (index .Config.Labels "com.docker.compose.service")}}'
    form = f'{{"service":{service},"id":{{{{json .Id}}}},"it":{{{{json .HostConfig}}}}}}'
    lines = droplet.check_output(f"docker inspect -f '{form}' $(docker ps -q)").splitlines()
    return {one["service"]: {"Id": one["id"], **one["it"]} for one in map(json.loads, lines)}


@pytest.fixture(scope="module")
def containers(droplet: Host) -> dict[str, Any]:
    found = ours(droplet)
    assert found.keys() >= {"web"}
    return found


def test_no_container_is_privileged_or_in_a_namespace_of_the_host(containers: dict[str, Any]) -> None:
    """CIS Docker 5.4, 5.9, 5.15, 5.16, 5.20, 5.30."""
    for service, it in containers.items():
        assert not it["Privileged"], service
        namespaces = [it[f"{name}Mode"] for name in ("Network", "Pid", "Ipc", "UTS", "Userns")]
        assert "host" not in namespaces, service
        assert not it["Devices"], service
        assert it["PortBindings"] in ({}, None), service


def test_containers_have_only_the_capabilities_of_their_entrypoints(containers: dict[str, Any]) -> None:
    """CIS Docker 5.3."""
    allowed = {"postgres": DATA_CAPABILITIES, "redis": DATA_CAPABILITIES | {"SETPCAP"}}
    for service, it in containers.items():
        assert it["CapDrop"] == ["ALL"], service
        added = {name.removeprefix("CAP_") for name in it["CapAdd"] or []}
        assert added <= allowed.get(service, set()), service


def test_containers_get_no_new_privileges_and_few_processes(containers: dict[str, Any]) -> None:
    """CIS Docker 5.25 and 5.28."""
    for service, it in containers.items():
        assert it["SecurityOpt"] == ["no-new-privileges:true"], service
        assert 0 < it["PidsLimit"] <= 512, service


def test_apparmor_confines_the_processes_of_containers(droplet: Host, containers: dict[str, Any]) -> None:
    """CIS Docker 5.1. A container of the lab has its host's kernel, so the test needs a machine with its own kernel."""
    if contained(droplet):
        assert not droplet.file("/sys/kernel/security/apparmor").exists
        return
    for service, it in containers.items():
        pid = droplet.check_output(f"docker inspect -f '{{{{.State.Pid}}}}' {it['Id']}")
        assert droplet.check_output(f"cat /proc/{pid}/attr/current") == "docker-default (enforce)", service


def test_the_kernel_enforces_the_limits_of_containers(droplet: Host, containers: dict[str, Any]) -> None:
    """CIS Docker 5.10 and 5.28. The kernel's control groups have the memory and pids limits that Docker was given."""
    if contained(droplet):
        return  # the control groups belong to the host, which may use version 1
    for service, it in containers.items():
        group = f"/sys/fs/cgroup/system.slice/docker-{it['Id']}.scope"
        limits = droplet.check_output(f"cd {group} && cat memory.max memory.swap.max pids.max").split()
        assert limits == [str(it["Memory"]), str(it["MemorySwap"] - it["Memory"]), str(it["PidsLimit"])], service


def test_the_root_file_system_of_containers_is_read_only(containers: dict[str, Any], env: Environment) -> None:
    """CIS Docker 5.12."""
    for service, it in containers.items():
        expected = service in {"postgres", "redis"} or env.settings.values.app_read_only
        assert it["ReadonlyRootfs"] is expected, service


def test_no_container_has_the_docker_socket(containers: dict[str, Any]) -> None:
    """CIS Docker 5.31."""
    for service, it in containers.items():
        mounts = [*(it["Binds"] or []), *(mount["Source"] for mount in it.get("Mounts") or [])]
        assert not [mount for mount in mounts if "docker.sock" in mount], service


def test_processes_in_containers_have_no_privileges_for_the_kernel(droplet: Host, containers: dict[str, Any]) -> None:
    """CIS Docker 4.1. `/proc` shows that each process is unprivileged and cannot gain privileges."""
    for service, it in containers.items():
        pid = droplet.check_output(f"docker inspect -f '{{{{.State.Pid}}}}' {it['Id']}")
        status = dict(line.split(":", 1) for line in droplet.check_output(f"cat /proc/{pid}/status").splitlines())
        assert "0" not in status["Uid"].split(), service
        assert int(status["CapEff"], 16) == 0, service
        assert int(status["NoNewPrivs"]) == 1, service


def test_containers_can_write_only_to_tmp(droplet: Host, containers: dict[str, Any]) -> None:
    """Try to write as root, whom no file mode stops. The control shows that the same command works in /tmp."""
    for service, it in containers.items():
        # An image without a shell cannot run this check, but the tests above have checked Docker's settings.
        if it["ReadonlyRootfs"] and droplet.run(f"docker exec {it['Id']} sh -c :").rc == 0:
            write = "touch {0}/written && rm {0}/written"
            refused = droplet.run(f"docker exec -u 0 {it['Id']} sh -c '{write.format('/usr/local')}'")
            assert "Read-only file system" in refused.stderr, service
            assert droplet.run(f"docker exec {it['Id']} sh -c '{write.format('/tmp')}'").rc == 0, service
