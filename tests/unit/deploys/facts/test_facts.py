"""Every fact turns the output of its command into the right value."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase

import deploys.facts
from deploys.facts import accounts
from deploys.facts.accounts import LoginShell, SystemUser
from deploys.facts.data import LINK, UNREADABLE, DirectoryState, PostgresMajor, RedisUser, RedisUsers, RolesAsDeclared
from deploys.facts.docker import ComposeServices, DockerNetworks, Network
from deploys.facts.files import FileState, PendingHandlers
from deploys.facts.machine import (
    CloudInitStatus,
    Container,
    Cpus,
    DebianRelease,
    HalfInstalled,
    HasAddress,
    HasTimeZone,
    InstanceId,
    MemoryMib,
    Modes,
    Networks,
    SwapfileMib,
    Swaps,
)
from deploys.facts.stackctl import Isolated, RecordedInstanceId, Status, WebhookHost
from deploys.facts.ufw import Firewall, Ufw
from stackctl.services import docker

GETUSER = f"flags\non\npasswords\n{'ab' * 32}\ncommands\n+@all -@x\nkeys\n~*\nchannels\n&*\nselectors\n\n"
REDIS_USER = RedisUser(frozenset({"ab" * 32}), "+@all -@x")
LABELS = {"com.docker.compose.project": "app-data", "com.docker.compose.service": "postgres", "app.sha256": "1"}
OF_REDIS = {"com.docker.compose.service": "redis"}
INSPECTED = [
    {
        **{"id": "f1", "image": "postgres:17.11-trixie", "labels": LABELS, "restarts": 0},
        "state": {"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy", "FailingStreak": 0}},
    },
    {
        **{"id": "f2", "image": "redis:8.10.1-trixie", "labels": OF_REDIS, "restarts": 1},
        "state": {"Status": "exited", "ExitCode": 137},
    },
]
SERVICES = {
    "postgres": docker.Container("f1", "postgres:17.11-trixie", "running", "healthy", 0, 0, LABELS),
    "redis": docker.Container("f2", "redis:8.10.1-trixie", "exited", None, 137, 1, OF_REDIS),
}
INSPECTED_NETWORKS = [
    {
        "Name": "app-app",
        "Internal": False,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.30.1.0/24", "IPRange": "172.30.1.128/25"}]},
    },
    {
        "Name": "app-data",
        "Internal": True,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.30.128.0/24", "Gateway": "172.30.128.1"}]},
    },
]
DOCKER_NETWORKS = {
    "app-app": Network(internal=False, subnet="172.30.1.0/24", ip_range="172.30.1.128/25"),
    "app-data": Network(internal=True, subnet="172.30.128.0/24", ip_range=""),
}
ADDRESSES = """[{"ifindex":1,"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},
{"ifindex":2,"ifname":"eth0","addr_info":[{"family":"inet","local":"203.0.113.7","prefixlen":20},
{"family":"inet","local":"10.19.0.5","prefixlen":16}]},{"ifindex":3,"ifname":"eth1","addr_info":[]}]"""
NETWORKS = {"lo": ["127.0.0.1/8"], "eth0": ["203.0.113.7/20", "10.19.0.5/16"], "eth1": []}
AUDIT = """The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 nginx                small, powerful, scalable web/proxy server
"""
HASH = sha256(b"content\n").hexdigest()
PLACED = {"mode": "640", "owner": "root", "group": "adm", "sha256": HASH}

CASES: list[tuple[type[FactBase[Any]], str, Any]] = [
    (FileState, f"640 root adm\n{HASH}  -\n", PLACED),
    (FileState, "", None),
    (PendingHandlers, "nginx\nunits\n", {"nginx", "units"}),
    (DirectoryState, "700 999 999\n", "700 999 999"),
    (DirectoryState, "", None),
    (
        SystemUser,
        "ci:x:993:993::/home/ci:/bin/sh\nci\n",
        accounts.SystemAccount("/home/ci", "/bin/sh", frozenset({"ci"})),
    ),
    (SystemUser, "", None),
    (PostgresMajor, "there\n17\n", 17),
    (PostgresMajor, "there\n", UNREADABLE),
    (PostgresMajor, 'there\n{"DATABAS', UNREADABLE),
    (PostgresMajor, "there\n٣\n", UNREADABLE),
    (PostgresMajor, "", None),
    (DirectoryState, f"{LINK}\n", LINK),
    (
        RedisUsers,
        f"{GETUSER}told by the administrator\n",
        RedisUser(frozenset({"ab" * 32}), "+@all -@x", by_administrator=True),
    ),
    (RedisUsers, f"NOAUTH Authentication required.\n{GETUSER}", REDIS_USER),
    (RedisUsers, "NOAUTH Authentication required.\n", RedisUser()),
    (RedisUsers, "", RedisUser()),
    (RolesAsDeclared, "t\nt\n", True),
    (RolesAsDeclared, "t\nf\n", False),
    (RolesAsDeclared, "f\nt\n", False),
    (RolesAsDeclared, "t\n", False),  # PostgreSQL refused one of the two queries
    (RolesAsDeclared, "", False),
    (ComposeServices, "\n".join(map(json.dumps, INSPECTED)), SERVICES),
    (ComposeServices, "", {}),
    (DockerNetworks, json.dumps(INSPECTED_NETWORKS, indent=4), DOCKER_NETWORKS),
    (DockerNetworks, "", {}),
    (CloudInitStatus, "status: done\n", "done"),
    (CloudInitStatus, "\nstatus: running\n", "running"),
    (CloudInitStatus, "status: not started\n", "running"),
    (CloudInitStatus, "status: disabled\n", "disabled"),
    (CloudInitStatus, "status: error\nextended_status: error - done\n", "error"),
    (CloudInitStatus, "Traceback (most recent call last):\n", None),
    (HalfInstalled, AUDIT, True),
    (HalfInstalled, "", False),
    (DebianRelease, "debian 13\n", "debian 13"),
    (MemoryMib, "MemTotal:        2014540 kB\n", 1967),
    (Cpus, "2\n", 2),
    (HasAddress, "yes\n", True),
    (HasAddress, "", False),
    (WebhookHost, '{"webhook": {"url": "https://bot.lab.test/webhook"}}', "bot.lab.test"),
    (WebhookHost, "", None),
    (HasTimeZone, "yes\n", True),
    (HasTimeZone, "no\n", False),
    (Networks, ADDRESSES, NETWORKS),
    (Container, "systemd-nspawn\n", True),
    (Container, "none\n", False),
    (LoginShell, "deploy:x:1000:1000:Operator,,,:/home/deploy:/bin/bash\n", "/bin/bash"),
    (LoginShell, "", None),
    (SwapfileMib, "1073741824\n", 1024),
    (SwapfileMib, "0\n", 0),
    (Modes, "700 /etc/cron.d\n600 /etc/crontab\n", {"/etc/cron.d": "700", "/etc/crontab": "600"}),
    (Modes, "", {}),
    (Swaps, "/swapfile\n/dev/vda2\n", {"/swapfile", "/dev/vda2"}),
    (Isolated, '{\n  "isolated": true\n}\n', True),
    (Isolated, "", False),
    (InstanceId, "512345678\n", "512345678"),
    (InstanceId, "512345678\n\x1b[2J\n", None),
    (InstanceId, "", None),
    (RecordedInstanceId, '{\n  "instance_id": "512345678"\n}\n', "512345678"),
    (RecordedInstanceId, '{\n  "instance_id": null\n}\n', None),
    (RecordedInstanceId, '{\n  "isolated": true\n}\n', None),
    (RecordedInstanceId, "", None),
    (Status, '{\n  "active": "blue"\n}\n', {"active": "blue"}),
    (Status, "stackctl: /etc/app/stackctl.json is missing. Next: make site\n", None),
    (Ufw, "Status: inactive\n", Firewall()),
]


@pytest.mark.parametrize(("fact", "output", "expected"), CASES)
def test_what_a_command_prints_is_read(fact: type[FactBase[Any]], output: str, expected: Any) -> None:
    assert fact().process(output.splitlines()) == expected


def test_every_fact_is_among_them() -> None:
    modules = [
        importlib.import_module(one.name) for one in pkgutil.iter_modules(deploys.facts.__path__, "deploys.facts.")
    ]
    facts = {
        found
        for module in modules
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, FactBase) and found.__module__ == module.__name__
    }
    assert facts == {fact for fact, _, _ in CASES}


def ask(fact: FactBase[Any], *arguments: str) -> Any:
    """Run the fact's command on this machine as pyinfra does.

    If the command prints nothing, return the fact's default.
    """
    command = fact.command(*arguments)
    ran = subprocess.run(["/bin/sh", "-c", str(command)], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    return fact.process(lines) if lines else fact.default()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a directory whose name a shell would split."""
    path = tmp_path / "a b'c$d"
    path.mkdir(mode=0o750)
    return path


def test_a_file_is_found_and_a_directory_or_nothing_is_none(folder: Path) -> None:
    file = folder / "x"
    file.write_bytes(b"content\n")
    file.chmod(0o640)
    there = {"mode": "640", "owner": file.owner(), "group": file.group(), "sha256": HASH}
    assert ask(FileState(), str(file)) == there
    assert ask(FileState(), str(folder)) is None
    assert ask(FileState(), str(folder / "nowhere")) is None


def test_pending_handlers_are_found_and_no_directory_is_none(folder: Path) -> None:
    (folder / "nginx").touch()
    assert ask(PendingHandlers(), str(folder)) == {"nginx"}
    assert ask(PendingHandlers(), str(folder / "nowhere")) == set()


def test_a_directory_is_found_and_a_file_or_nothing_is_none(folder: Path) -> None:
    (folder / "x").touch()
    owner = folder.stat()
    assert ask(DirectoryState(), str(folder)) == f"750 {owner.st_uid} {owner.st_gid}"
    assert ask(DirectoryState(), str(folder / "x")) is None
    assert ask(DirectoryState(), str(folder / "nowhere")) is None


def test_a_database_has_its_major_version_and_none_is_none(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("17\n")
    assert ask(PostgresMajor(), str(folder)) == 17
    assert ask(PostgresMajor(), str(folder / "nowhere")) is None


def test_a_fifo_or_link_in_place_of_pg_version_is_neither_opened_nor_shown(folder: Path, tmp_path: Path) -> None:
    """In attack S11, an error message followed a link and showed the content of a file that only root can read."""
    version, outside = folder / "PG_VERSION", tmp_path / "outside"
    outside.write_text("16\n")
    plants: list[Callable[[], object]] = [
        lambda: version.symlink_to(outside),
        lambda: version.symlink_to("/dev/zero"),
        lambda: version.symlink_to(folder / "nowhere"),
        lambda: os.mkfifo(version),
        version.mkdir,
        lambda: version.write_text("17 and more, without end" * 100_000),
    ]
    for plant in plants:
        plant()
        assert ask(PostgresMajor(), str(folder)) == UNREADABLE
        version.rmdir() if version.is_dir() and not version.is_symlink() else version.unlink()


def test_a_data_directory_that_is_a_link_is_reported(folder: Path) -> None:
    (folder / "link").symlink_to(folder)
    assert ask(DirectoryState(), str(folder / "link")) == LINK


def test_a_swap_file_has_its_size_and_none_has_0(folder: Path) -> None:
    with (folder / "swap").open("wb") as file:
        file.truncate(3 * 2**20)
    assert ask(SwapfileMib(), str(folder / "swap")) == 3
    assert ask(SwapfileMib(), str(folder / "nowhere")) == 0


def test_an_account_has_its_shell_and_none_is_none() -> None:
    assert ask(LoginShell(), "root").startswith("/")
    assert ask(LoginShell(), "nobody-of-this-name") is None
