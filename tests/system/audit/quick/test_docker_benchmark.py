"""Checks CIS Docker, sections 2, 3 and 5, and the part of section 4 that can be checked on a droplet.

The numbers are those of dev-sec's cis-docker-benchmark (CIS 1.13). Sections 1 and 6 and the rest of section 4 are rules
for people. Without a swarm, the controls for swarms are met. In section 5, 5.2 does not apply because Debian does not
use SELinux, and 5.22, 5.23 and 5.27 do not apply because they are about commands that people type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from tests.system.audit.conftest import Control
from tests.system.audit.files import too_open

pytestmark = pytest.mark.group("app")

BENCHMARK = "CIS Docker"
Json = dict[str, Any]

CAPABILITIES = frozenset({"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETPCAP", "SETUID"})
"""The capabilities of an entrypoint that starts as root, takes ownership of its directory, and
changes to another user.
"""
SENSITIVE = ("/boot", "/dev", "/lib", "/proc", "/sys", "/usr")


@dataclass(frozen=True)
class Engine:
    """Docker's daemon, with its configuration and its own report."""

    daemon: Json
    info: Json


def without_swarm(engine: Engine) -> bool:
    return str(engine.info["Swarm"]["LocalNodeState"]) == "inactive"


DAEMON: dict[str, Callable[[Engine], bool]] = {
    "2.1": lambda engine: engine.daemon.get("icc") is False,
    "2.2": lambda engine: engine.daemon.get("log-level", "info") == "info",
    "2.3": lambda engine: engine.daemon.get("iptables", True) is True,
    "2.4": lambda engine: not engine.daemon.get("insecure-registries"),
    "2.5": lambda engine: engine.info["Driver"] == "overlay2",
    "2.7": lambda engine: "default-ulimits" in engine.daemon,
    "2.8": lambda engine: "name=userns" in engine.info["SecurityOptions"],
    "2.9": lambda engine: "cgroup-parent" not in engine.daemon,
    "2.10": lambda engine: "storage-opts" not in engine.daemon,
    "2.11": lambda engine: bool(engine.info["Plugins"]["Authorization"]),
    "2.12": lambda engine: engine.info["LoggingDriver"] not in {"local", "json-file", "none"},
    "2.13": lambda engine: engine.daemon.get("disable-legacy-registry", True) is True,
    "2.14": lambda engine: engine.info["LiveRestoreEnabled"] is True,
    "2.15": without_swarm,
    "2.16": without_swarm,
    "2.17": without_swarm,
    "2.18": lambda engine: engine.daemon.get("userland-proxy") is False,
    "2.19": without_swarm,
    "2.20": lambda engine: any(option.startswith("name=seccomp") for option in engine.info["SecurityOptions"]),
    "2.21": lambda engine: engine.info["ExperimentalBuild"] is False,
    "2.22": without_swarm,
    "2.23": without_swarm,
    "2.24": without_swarm,
}

FILES: dict[str, tuple[str, str, int]] = {
    "3.1": ("docker.service", "root:root", 0o777),
    "3.2": ("docker.service", "root:root", 0o644),
    "3.3": ("docker.socket", "root:root", 0o777),
    "3.4": ("docker.socket", "root:root", 0o644),
    "3.5": ("/etc/docker", "root:root", 0o777),
    "3.6": ("/etc/docker", "root:root", 0o755),
    "3.15": ("/run/docker.sock", "root:docker", 0o777),
    "3.16": ("/run/docker.sock", "root:docker", 0o660),
    "3.17": ("/etc/docker/daemon.json", "root:root", 0o777),
    "3.18": ("/etc/docker/daemon.json", "root:root", 0o644),
    "3.19": ("/etc/default/docker", "root:root", 0o777),
    "3.20": ("/etc/default/docker", "root:root", 0o644),
}
"""The owner of each file, and the most permissive mode that it may have."""

NOT_USED = {
    "2.6": ("ss -Hltnp", "dockerd"),
    "3.7-3.8": ("find /etc/docker", r"/certs\.d"),
    "3.9-3.14": ("cat /etc/docker/daemon.json", "tls(cacert|cert|key)"),
}
"""Files that don't exist and so need no permissions: the daemon has no port, and the system trusts the registry's
authority.
"""


def host(name: str) -> Callable[[Json], bool]:
    return lambda one: bool(one["HostConfig"][name] != "host")


def ports(one: Json) -> list[Json]:
    return [binding for bindings in one["NetworkSettings"]["Ports"].values() for binding in bindings or []]


def sources(one: Json) -> list[str]:
    return [mount["Source"] for mount in one["Mounts"] if mount["Type"] == "bind"]


def security(one: Json) -> list[str]:
    return one["HostConfig"]["SecurityOpt"] or []


CONTAINER: dict[str, Callable[[Json], bool]] = {
    "4.6": lambda one: bool(one["Config"].get("Healthcheck")),
    "5.1": lambda one: one["AppArmorProfile"] not in {"", "unconfined"},
    "5.3": lambda one: (
        one["HostConfig"]["CapDrop"] == ["ALL"] and {*(one["HostConfig"]["CapAdd"] or [])} <= CAPABILITIES
    ),
    "5.4": lambda one: one["HostConfig"]["Privileged"] is False,
    "5.5": lambda one: not any(path == "/" or path.startswith(SENSITIVE) for path in sources(one)),
    "5.7": lambda one: not any(int(port["HostPort"]) <= 1024 for port in ports(one)),
    "5.8": lambda one: not ports(one),
    "5.9": host("NetworkMode"),
    "5.10": lambda one: one["HostConfig"]["Memory"] > 0,
    "5.11": lambda one: one["HostConfig"]["NanoCpus"] > 0 or one["HostConfig"]["CpuShares"] not in {0, 1024},
    "5.12": lambda one: one["HostConfig"]["ReadonlyRootfs"] is True,
    "5.13": lambda one: not any(port["HostIp"] not in {"127.0.0.1", "::1"} for port in ports(one)),
    "5.14": lambda one: (
        one["HostConfig"]["RestartPolicy"]
        in ({"Name": "no", "MaximumRetryCount": 0}, {"Name": "on-failure", "MaximumRetryCount": 5})
    ),
    "5.15": host("PidMode"),
    "5.16": host("IpcMode"),
    "5.17": lambda one: not one["HostConfig"]["Devices"],
    "5.18": lambda one: not one["HostConfig"]["Ulimits"],
    "5.19": lambda one: not any(mount["Propagation"] in {"shared", "rshared"} for mount in one["Mounts"]),
    "5.20": host("UTSMode"),
    "5.21": lambda one: not any("unconfined" in option for option in security(one)),
    "5.24": lambda one: one["HostConfig"]["CgroupParent"] == "",
    "5.25": lambda one: any(option in {"no-new-privileges", "no-new-privileges:true"} for option in security(one)),
    "5.26": lambda one: one["State"].get("Health", {}).get("Status") == "healthy",
    "5.28": lambda one: (one["HostConfig"]["PidsLimit"] or 0) > 0,
    "5.29": lambda one: "bridge" not in one["NetworkSettings"]["Networks"],
    "5.30": host("UsernsMode"),
    "5.31": lambda one: not any("docker.sock" in path for path in sources(one)),
}


@pytest.fixture(scope="module")
def engine(droplet: Host) -> Engine:
    told = json.loads(droplet.file("/etc/docker/daemon.json").content_string)
    return Engine(told, json.loads(droplet.check_output("docker info --format '{{json .}}'")))


@pytest.fixture(scope="module")
def containers(droplet: Host) -> list[Json]:
    found: list[Json] = json.loads(droplet.check_output("docker inspect $(docker ps --quiet)"))
    assert found, "no container runs"
    return found


@pytest.mark.parametrize("number", DAEMON)
def test_daemon(engine: Engine, control: Control, number: str) -> None:
    control(BENCHMARK, number, "" if DAEMON[number](engine) else "not so")


@pytest.mark.parametrize("number", FILES)
def test_file(droplet: Host, control: Control, number: str) -> None:
    name, owner, most = FILES[number]
    path = (
        name if name.startswith("/") else droplet.check_output(f"systemctl show --property FragmentPath --value {name}")
    )
    assert droplet.file(path).exists, path
    control(BENCHMARK, number, too_open(droplet, path, owner, most))


@pytest.mark.parametrize("number", NOT_USED)
def test_it_is_not_used(droplet: Host, control: Control, number: str) -> None:
    command, used = NOT_USED[number]
    lines = droplet.check_output(command).splitlines()
    assert lines, "the test has examined nothing"
    control(BENCHMARK, number, ", ".join(line for line in lines if re.search(used, line)))


@pytest.mark.parametrize("number", CONTAINER)
def test_containers(containers: list[Json], control: Control, number: str) -> None:
    wrong = [one["Name"].lstrip("/") for one in containers if not CONTAINER[number](one)]
    control(BENCHMARK, number, ", ".join(wrong))


def processes(droplet: Host, container: Json) -> list[list[str]]:
    """Return the user ID and program of each process."""
    listed = droplet.check_output(f"docker top {container['Id']} -eo pid,uid,comm").splitlines()[1:]
    return [line.split(None, 2)[1:] for line in listed]


def test_no_process_of_a_container_is_root(droplet: Host, containers: list[Json], control: Control) -> None:
    rooted = [one["Name"] for one in containers if any(uid == "0" for uid, _ in processes(droplet, one))]
    control(BENCHMARK, "4.1", ", ".join(rooted))


def test_no_container_runs_sshd(droplet: Host, containers: list[Json], control: Control) -> None:
    running = [one["Name"] for one in containers if any(program == "sshd" for _, program in processes(droplet, one))]
    control(BENCHMARK, "5.6", ", ".join(running))
