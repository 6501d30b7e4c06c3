"""An environment as tests see it: its inventory's groups, its values, and SSH to its hosts. `--env` names it."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import tempfile
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
    """`stackctl status --json` of a host of `app`, whether all is well or not."""
    return dict(json.loads(host.run("stackctl status --json").stdout))


@dataclass(frozen=True)
class Environment:
    name: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    """What the converge was told besides group_data, as by pyinfra's --data."""

    @cached_property
    def data(self) -> dict[str, Any]:
        return {**group_data(self.name), **self.changed}

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.data)

    def hosts(self, group: str) -> list[str]:
        """The group's hosts by name; of every group, when it is `everywhere`."""
        inventory = runpy.run_path(str(ROOT / "inventories" / f"{self.name}.py"))
        groups = GROUPS if group == "everywhere" else (group,)
        return sorted({host for one in groups for host in inventory[one]})

    def connect(self, host: str, *, sudo: bool = True) -> Host:
        """One connection is kept open and shared by all commands: an SSH handshake costs more than most checks."""
        options = {
            "ssh_config": self.data["ssh_config_file"],
            "ssh_extra_args": shlex.join(self._shared),
        }
        # Longer than any pause between two commands: one that meets the connection at its end fails with 255.
        return testinfra.get_host(f"ssh://{host}?controlpersist=600", sudo=sudo, **options)

    def reconnect(self, host: str) -> Host:
        """After a reboot the shared connection leads nowhere."""
        command = ["ssh", "-F", self.data["ssh_config_file"], *self._shared, "-O", "exit", host]
        subprocess.run(command, check=False, capture_output=True)
        return self.connect(host)

    def run_python(
        self, host: Host, program: Path, *arguments: str, stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        """A program, as root on a host. Not by way of testinfra, whose debug log has every command's output.

        An exit code other than 0 is the caller's to look at: a traceback through here would show `stdin`.
        """
        remote = shlex.join(["sudo", "python3", "-c", program.read_text(), *arguments])
        command = ["ssh", "-F", self.data["ssh_config_file"], *self._shared, host.backend.get_hostname(), remote]
        return subprocess.run(command, input=stdin, capture_output=True, check=False)

    @property
    def _shared(self) -> list[str]:
        """What has ssh use the connection that is kept open, where there is one."""
        return ["-o", f"ControlPath={self._sockets.name}/%C"]

    @cached_property
    def _sockets(self) -> tempfile.TemporaryDirectory[str]:
        """Gone with the last reference to it, at the end of the run."""
        return tempfile.TemporaryDirectory(prefix="ssh-")

    @cached_property
    def outside(self) -> Host:
        """Where a client or an attacker sits: the lab's neighbour, the operator's machine for any other environment."""
        return self.connect("neighbour", sudo=False) if self.name == "lab" else testinfra.get_host("local://")

    def ask_as_telegram(self, url: str, options: str = "") -> str:
        """Status line, headers and body of the answer to the lab's Telegram, whom the webhook is for."""
        curl = "curl -sS --include --max-time 10 --cacert /etc/telegram/acme-root.pem"
        return str(self.connect("world", sudo=False).check_output(f"{curl} {options} {url}"))

    def ask_postgres(self, host: Host, sql: str) -> str:
        """PostgreSQL's answer on a host of `data`. Of no app's role is a function run or a setting obeyed."""
        return str(host.check_output(f"{self._psql(SESSION['search_path'])} -c {shlex.quote(sql)}"))

    def ask_app_tables(self, host: Host, sql: str) -> str:
        """The same in the lab, with the app's tables in the path."""
        return str(host.check_output(f"{self.psql} -c {shlex.quote(sql)}"))

    def ask_redis(self, host: Host, command: str) -> str:
        """Redis's answer on a host of `data`."""
        return str(host.check_output(self.redis_cli(command)))

    @property
    def psql(self) -> str:
        """In the lab, whose app we trust, with the app's tables in the path. Takes SQL on standard input, too."""
        return self._psql("public,pg_temp")

    def _psql(self, search_path: str) -> str:
        """As the superuser, whom the container's own socket admits."""
        container, database = self.settings.paths.docker.data_container("postgres"), self.settings.values.database
        settings = shlex.quote(f"PGOPTIONS={session({**OF_SUPERUSER, 'search_path': search_path})}")
        return f"docker exec -i --env {settings} {container} psql -qtAX -v ON_ERROR_STOP=1 -U postgres -d {database}"

    def redis_cli(self, command: str) -> str:
        """As the administrator. The password comes from its file, inside the container."""
        inside = f"{redis_cli('administrator')} {command}"
        return f"docker exec {self.settings.paths.docker.data_container('redis')} sh -c {shlex.quote(inside)}"

    @property
    def trust(self) -> str:
        """What curl is told about authorities: the lab's ACME server has a root of its own."""
        return "--cacert /root/acme-root.pem" if self.name == "lab" else ""
