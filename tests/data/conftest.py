"""Data that has to survive, in the lab alone. Each test begins on a droplet that is well, and leaves one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.places import Place, status
from tests.releases.under_way import DROPLET


@pytest.fixture(scope="session", autouse=True)
def _alone(lab: Place, droplet: Host) -> Iterator[None]:
    """No timer's backup comes in between."""
    timer = lab.settings.paths.backup_timer
    droplet.check_output(f"systemctl stop {timer}")
    yield
    droplet.check_output(f"systemctl start {timer}")


@dataclass(frozen=True)
class Database:
    """The live PostgreSQL, as its superuser sees it; of its databases, the app's unless another one is named."""

    droplet: Host
    container: str
    name: str

    def ask(self, sql: str, name: str = "") -> str:
        return str(self.droplet.check_output(f"{self.psql(name)} -c {shlex.quote(sql)}"))

    @property
    def login(self) -> str:
        """The app's own role that logs in, and acts as the owner."""
        return self.ask("SELECT min(rolname) FROM pg_roles WHERE rolname ~ '^toogoodtogo_[0-9a-f]{8}$'")

    def restore(self, dump: Path, name: str) -> None:
        """By hand, into one that is empty."""
        restore = f"docker exec -i {self.container} pg_restore --exit-on-error -U postgres -d {name}"
        self.droplet.check_output(f"{restore} < {dump}")

    def psql(self, name: str = "") -> str:
        """Takes SQL on standard input."""
        program = "psql -qtAX -v ON_ERROR_STOP=1 -U postgres"
        return f"docker exec -i {self.container} {program} -d {name or self.name}"

    def over_ssh(self, name: str = "") -> list[str]:
        return ["ssh", "-F", ".lab/ssh_config", self.droplet.backend.get_hostname(), f"sudo {self.psql(name)}"]


def live_database(lab: Place, droplet: Host) -> Database:
    return Database(droplet, lab.settings.paths.data_container("postgres"), lab.settings.values.database)


@pytest.fixture
def database(lab: Place, droplet: Host) -> Database:
    return live_database(lab, droplet)


def connected(lab: Place) -> tuple[Host, Database]:
    """Anew, since the machine may have been killed."""
    droplet = lab.reconnect(DROPLET.name)
    return droplet, live_database(lab, droplet)


def backups(droplet: Host) -> list[dict[str, Any]]:
    """Oldest first."""
    return list(json.loads(droplet.check_output("stackctl backups --json")))


def proven(droplet: Host) -> list[str]:
    """By their ids."""
    return [one["id"] for one in backups(droplet) if one["verified"]]


def problems(droplet: Host) -> list[str]:
    return list(status(droplet)["problems"])


def leftovers(droplet: Host) -> str:
    """What no run may leave."""
    return str(droplet.check_output("ls -d /opt/backups/*.partial; docker ps -aq --filter name=-verify-; true"))
