"""The environment that `--env` names, with its inventory's groups, its values, and SSH connections to its hosts."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import testinfra
from testinfra.host import Host

from deploys.config.environments import group_data
from deploys.config.settings import Settings, load_settings
from deploys.facts.data import redis_cli
from stackctl.services.postgres import OF_SUPERUSER, SESSION, session

ROOT = Path(__file__).parents[2]
GROUPS = ("edge", "app", "data", "monitor")


def status(host: Host) -> dict[str, Any]:
    """Return the output of `stackctl status --json` on a host of the group `app`, with or without problems."""
    return dict(json.loads(host.run("stackctl status --json").stdout))


def contained(host: Host) -> bool:
    """Return whether a host is a container, which has the kernel, the clock and the swap of another machine."""
    return bool(host.run("systemd-detect-virt --container").rc == 0)


def lasting_problems(host: Host, seconds: float = 120) -> list[str]:
    """Return [] as soon as `stackctl status` shows no problem, or the problems that are left after `seconds`.

    After each failed delivery, Telegram waits longer. So an update may wait for a while after its cause has gone.
    """
    deadline = time.monotonic() + seconds
    while (problems := list(status(host)["problems"])) and time.monotonic() < deadline:
        time.sleep(1)
    return problems


@dataclass(frozen=True)
class Environment:
    name: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Values that replace values of group_data in a converge, as with pyinfra's `--data`."""

    @cached_property
    def data(self) -> dict[str, Any]:
        return {**group_data(self.name), **self.changed}

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.data)

    @property
    def in_lab(self) -> bool:
        """Whether the lab's machines serve this environment: the lab's own droplet, or its virtual machine."""
        return bool(self.data["environment"] == "lab")

    def hosts(self, group: str) -> list[str]:
        """Return the names of the hosts in a group. The group `everywhere` has all hosts."""
        inventory = runpy.run_path(str(ROOT / "inventories" / f"{self.name}.py"))
        groups = GROUPS if group == "everywhere" else (group,)
        return sorted({host for one in groups for host in inventory[one]})

    def connect(self, host: str, *, sudo: bool = True) -> Host:
        """Return a host whose commands share one open connection, because a handshake takes longer than most checks."""
        options = {
            "ssh_config": self.data["ssh_config_file"],
            "ssh_extra_args": shlex.join(self._shared),
        }
        # The connection outlasts any pause between commands. A command that starts while the connection closes would
        # exit with 255.
        return testinfra.get_host(f"ssh://{host}?controlpersist=600", sudo=sudo, **options)

    def reconnect(self, host: str) -> Host:
        """Replace the shared connection, which is dead after a reboot."""
        command = ["ssh", "-F", self.data["ssh_config_file"], *self._shared, "-O", "exit", host]
        subprocess.run(command, check=False, capture_output=True)
        return self.connect(host)

    def run_python(
        self, host: Host, program: Path, *arguments: str, stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program as root on a host, without testinfra, whose debug log contains every command's output.

        The caller checks the exit code, because a traceback from this function would show `stdin`.
        """
        remote = shlex.join(["sudo", "python3", "-c", program.read_text(), *arguments])
        command = ["ssh", "-F", self.data["ssh_config_file"], *self._shared, host.backend.get_hostname(), remote]
        return subprocess.run(command, input=stdin, capture_output=True, check=False)

    @property
    def _shared(self) -> list[str]:
        """Options that make ssh use the open connection to a host."""
        return ["-o", f"ControlPath={self._sockets.name}/%C"]

    @cached_property
    def _sockets(self) -> tempfile.TemporaryDirectory[str]:
        """A temporary directory for the sockets of shared connections.

        Python removes the directory at the end of the run.
        """
        return tempfile.TemporaryDirectory(prefix="ssh-")

    @cached_property
    def outside(self) -> Host:
        """The machine of a client or an attacker.

        The lab's neighbour plays this part in the lab, and the operator's machine plays it elsewhere.
        """
        return self.connect("neighbour", sudo=False) if self.in_lab else testinfra.get_host("local://")

    def ask_as_telegram(self, url: str, options: str = "") -> str:
        """Send a request from the lab's Telegram, and return the answer's status line, headers and body."""
        curl = "curl -sS --include --max-time 10 --cacert /etc/telegram/acme-root.pem"
        return str(self.connect("world", sudo=False).check_output(f"{curl} {options} {url}"))

    def ask_postgres(self, host: Host, sql: str) -> str:
        """Run a query on a host of the group `data`, unaffected by the functions and settings of the app's roles."""
        return str(host.check_output(f"{self._psql(SESSION['search_path'])} -c {shlex.quote(sql)}"))

    def ask_app_tables(self, host: Host, sql: str) -> str:
        """Run a query in the lab's PostgreSQL, with the app's tables in the search path."""
        return str(host.check_output(f"{self.psql} -c {shlex.quote(sql)}"))

    def ask_redis(self, host: Host, command: str) -> str:
        """Return Redis's answer on a host of the group `data`."""
        return str(host.check_output(self.redis_cli(command)))

    @property
    def psql(self) -> str:
        """A psql command with the app's tables in the search path, only for the lab, whose app is trusted."""
        return self._psql("public,pg_temp")

    def _psql(self, search_path: str) -> str:
        """Return a psql command as the superuser, whom the container's socket admits."""
        container, database = self.settings.paths.docker.data_container("postgres"), self.settings.values.database
        settings = shlex.quote(f"PGOPTIONS={session({**OF_SUPERUSER, 'search_path': search_path})}")
        return f"docker exec -i --env {settings} {container} psql -qtAX -v ON_ERROR_STOP=1 -U postgres -d {database}"

    def redis_cli(self, command: str) -> str:
        """Return a redis-cli command as the administrator. The password comes from its file inside the container."""
        inside = f"{redis_cli('administrator')} {command}"
        return f"docker exec {self.settings.paths.docker.data_container('redis')} sh -c {shlex.quote(inside)}"

    @property
    def trust(self) -> str:
        """A curl option that trusts the lab's ACME server."""
        return "--cacert /root/acme-root.pem" if self.in_lab else ""
