"""The bot: the live release, its environment, its socket, and boot."""

from __future__ import annotations

import json
import shlex
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from stackctl.environment import canonical
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("app")


def status(droplet: Host) -> Any:
    return json.loads(droplet.run("stackctl status --json").stdout)


def fingerprint(content: bytes) -> str:
    return sha256(content).hexdigest()


def test_stackctl_finds_nothing_wrong(droplet: Host) -> None:
    assert status(droplet)["problems"] == []


def test_the_link_the_state_and_what_runs_agree(droplet: Host, place: Place) -> None:
    paths, said = place.settings.paths, status(droplet)
    colour = said["active"]
    assert droplet.check_output(f"readlink {paths.active}") == f"{colour}.sock"
    assert said["colours"][colour]["image"].startswith(f"{place.settings.values.app_repository}@sha256:")
    running = droplet.check_output(f"docker ps --filter label=com.docker.compose.project={paths.project(colour)} -q")
    assert len(running.split()) == 1


def test_the_app_answers_behind_its_socket(droplet: Host, place: Place) -> None:
    said = status(droplet)
    health = json.loads(droplet.check_output(f"curl -sS --unix-socket {place.settings.paths.active} http://app/health"))
    assert health["version"] == said["release"]["tag"]
    assert health["dependencies"] == {"postgres": "up", "redis": "up"}


def test_the_schema_is_current(droplet: Host, place: Place) -> None:
    web = f"{place.settings.paths.project(status(droplet)['active'])}-web-1"
    python = f"docker inspect -f '{{{{json .Config.Entrypoint}}}}' {web}"
    entrypoint = shlex.join(json.loads(droplet.check_output(python)))
    schema = json.loads(droplet.check_output(f"docker exec {web} {entrypoint} schema --json"))
    assert schema["pending"] == []
    assert schema["current"] == schema["head"]


def test_the_app_s_environment_is_the_declared_one_byte_for_byte(droplet: Host, place: Place) -> None:
    """As the kernel has it, with spaces, $, #, quotes, %, backslashes and unicode. No value comes here to be shown."""
    web = f"{place.settings.paths.project(status(droplet)['active'])}-web-1"
    pid = droplet.check_output(f"docker inspect -f '{{{{.State.Pid}}}}' {web}")
    expected = {name: fingerprint(value.encode()) for name, value in place.settings.app_environment().items()}
    control = {"NOT_IN_THE_ENVIRONMENT": ""}
    program = Path(__file__).parent / "find_differing.py"
    found = place.run_python(droplet, program, pid, stdin=json.dumps(expected | control).encode())
    assert found.returncode == 0, found.stderr.decode()
    assert json.loads(found.stdout) == [*control]


def test_the_next_environment_is_the_declared_one(droplet: Host, place: Place) -> None:
    declared = fingerprint(canonical(place.settings.app_environment()))
    assert droplet.file(str(place.settings.paths.next_environment)).sha256sum == declared


def test_the_container_can_do_little(droplet: Host, place: Place) -> None:
    web = f"{place.settings.paths.project(status(droplet)['active'])}-web-1"
    host_config = json.loads(droplet.check_output(f"docker inspect -f '{{{{json .HostConfig}}}}' {web}"))
    assert host_config["CapDrop"] == ["ALL"]
    assert host_config["Memory"] == place.settings.values.app_memory_mib * 2**20
    assert droplet.check_output(f"docker exec {web} id -u") != "0"


def test_the_stack_comes_up_at_boot_and_does_not_hang_on_docker(droplet: Host, place: Place) -> None:
    unit = place.settings.paths.unit
    assert droplet.service(unit).is_enabled
    assert droplet.service(unit).is_running
    bound = droplet.check_output(f"systemctl show {unit} --property=Requires --property=BindsTo")
    assert "docker" not in bound


def test_nginx_alone_may_use_the_sockets(droplet: Host, place: Place) -> None:
    socket = droplet.file(str(place.settings.paths.socket(status(droplet)["active"])))
    assert (socket.mode, socket.user, socket.group) == (0o660, "root", "www-data")
