"""Checks of the bot's live release, with its environment, its socket and its start at boot."""

from __future__ import annotations

import json
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from stackctl.app.app_env import canonical
from tests.support import environment
from tests.support.environment import Environment

pytestmark = pytest.mark.group("app")


@pytest.fixture(scope="module")
def status(droplet: Host) -> Any:
    return environment.status(droplet)


def fingerprint(content: bytes) -> str:
    return sha256(content).hexdigest()


@pytest.fixture(scope="module")
def containers(status: Any, env: Environment) -> dict[str, str]:
    """Return the containers of the live colour and of the worker, by service. An app may lack a worker."""
    paths = env.settings.paths
    found = {"web": f"{paths.docker.project(status['active'])}-web-1"}
    return found | ({"worker": f"{paths.docker.worker_project}-worker-1"} if env.settings.values.app_worker else {})


def test_stackctl_reports_no_problem(status: Any) -> None:
    assert status["problems"] == []


def test_the_link_the_state_and_the_containers_agree(droplet: Host, env: Environment, status: Any) -> None:
    paths = env.settings.paths
    colour = status["active"]
    assert droplet.check_output(f"readlink {paths.active}") == f"{colour}.sock"
    assert status["colours"][colour]["image"].startswith(f"{env.settings.values.app_repository}@sha256:")
    running = droplet.check_output(
        f"docker ps --filter label=com.docker.compose.project={paths.docker.project(colour)} -q"
    )
    assert len(running.split()) == 1


def test_the_app_answers_behind_its_socket(droplet: Host, env: Environment, status: Any) -> None:
    """The app is ready.

    If `/health` is declared, its answer shows the version and the services (docs/reference/app-contract.md).
    """
    values = env.settings.values
    ask = f"curl -sS --fail --unix-socket {env.settings.paths.active} http://app"
    droplet.check_output(f"{ask}{values.ready_path}")
    if values.version_path:
        health = json.loads(droplet.check_output(f"{ask}{values.version_path}"))
        assert health["version"] == status["release"]["tag"]
        assert set(health.get("dependencies", {"it": "up"}).values()) == {"up"}


def test_the_app_finds_its_data_without_docker_s_name_server(
    droplet: Host, env: Environment, containers: dict[str, str]
) -> None:
    """Docker's name server does not answer while the daemon is stopped."""
    for container in containers.values():
        hosts = droplet.check_output(f"docker inspect -f '{{{{.HostsPath}}}}' {container}")
        known = [line.split() for line in droplet.file(hosts).content_string.splitlines()]
        for name, address in env.settings.values.data_addresses.items():
            assert [str(address), name] in known


def test_the_schema_is_current(droplet: Host, env: Environment, status: Any, containers: dict[str, str]) -> None:
    if not env.settings.values.app_migrates:
        assert status["release"]["schema"] is None
        return
    web = containers["web"]
    python = f"docker inspect -f '{{{{json .Config.Entrypoint}}}}' {web}"
    entrypoint = shlex.join(json.loads(droplet.check_output(python)))
    schema = json.loads(droplet.check_output(f"docker exec {web} {entrypoint} schema --json"))
    assert schema["pending"] == []
    assert schema["current"] == schema["head"]


def test_the_app_has_the_declared_environment_byte_for_byte(
    droplet: Host, env: Environment, containers: dict[str, str]
) -> None:
    """Compare the environment in `/proc` byte for byte, including special characters. No value leaves the droplet."""
    expected = {name: fingerprint(value.encode()) for name, value in env.settings.app_environment().items()}
    control = {"NOT_IN_THE_ENVIRONMENT": ""}
    program = Path(__file__).parent / "find_differing.py"
    for container in containers.values():
        pid = droplet.check_output(f"docker inspect -f '{{{{.State.Pid}}}}' {container}")
        found = env.run_python(droplet, program, pid, stdin=json.dumps(expected | control).encode())
        assert found.returncode == 0, found.stderr.decode()
        assert json.loads(found.stdout) == [*control], container


def test_the_next_environment_is_the_declared_one(droplet: Host, env: Environment) -> None:
    declared = fingerprint(canonical(env.settings.app_environment()))
    assert droplet.file(str(env.settings.paths.next_environment)).sha256sum == declared


def test_the_app_s_containers_have_no_privileges(droplet: Host, env: Environment, containers: dict[str, str]) -> None:
    values = env.settings.values
    memory = {"web": values.app_memory_mib, "worker": values.worker_memory_mib}
    for service, container in containers.items():
        host_config = json.loads(droplet.check_output(f"docker inspect -f '{{{{json .HostConfig}}}}' {container}"))
        assert host_config["CapDrop"] == ["ALL"]
        assert host_config["Memory"] == host_config["MemorySwap"] == memory[service] * 2**20
        pid = droplet.check_output(f"docker inspect -f '{{{{.State.Pid}}}}' {container}")
        assert droplet.check_output(f"stat -c %u /proc/{pid}") != "0", "the app runs as root"


def test_one_worker_runs_with_the_live_release(droplet: Host, env: Environment, containers: dict[str, str]) -> None:
    paths, values = env.settings.paths, env.settings.values
    assert droplet.file(str(paths.worker_yaml)).exists is values.app_worker
    running = droplet.check_output(
        f"docker ps --filter label=com.docker.compose.project={paths.docker.worker_project} -q"
    )
    assert len(running.split()) == int(values.app_worker)
    label = f"docker inspect -f '{{{{index .Config.Labels \"{paths.docker.release_label}\"}}}}'"
    releases = {droplet.check_output(f"{label} {one}") for one in containers.values()}
    assert len(releases) == 1


def test_the_stack_starts_at_boot_and_does_not_depend_on_docker(droplet: Host, env: Environment) -> None:
    unit = env.settings.paths.units.app
    assert droplet.service(unit).is_enabled
    assert droplet.service(unit).is_running
    bound = droplet.check_output(f"systemctl show {unit} --property=Requires --property=BindsTo")
    assert "docker" not in bound


def test_only_nginx_may_use_the_sockets(droplet: Host, env: Environment, status: Any) -> None:
    socket = droplet.file(str(env.settings.paths.socket(status["active"])))
    assert (socket.mode, socket.user, socket.group) == (0o660, "root", "www-data")
