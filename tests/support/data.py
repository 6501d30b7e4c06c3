"""The lab's live data and its backups, as an operator sees them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.support.environment import Environment, status
from tests.support.under_way import DROPLET


@dataclass(frozen=True)
class Database:
    """The live PostgreSQL. Queries go to the app's database unless another database is named.

    Queries run as docs/how-to/runbook.md says: in `postgres` as the superuser, and elsewhere as the app's login, which
    acts as the owner.
    """

    droplet: Host
    container: str
    name: str
    owner: str
    login: str

    def ask(self, sql: str, name: str = "") -> str:
        return str(self.droplet.check_output(f"{self.psql(name)} -c {shlex.quote(sql)}"))

    def ask_as_superuser(self, sql: str) -> str:
        """Run a query in the app's database as the superuser, because the app lacks permission for the query."""
        return str(self.droplet.check_output(f"{self._psql('postgres', self.name)} -c {shlex.quote(sql)}"))

    def create(self, name: str) -> None:
        """Create an empty database that belongs to the app's owner."""
        self.ask(f"CREATE DATABASE {name} TEMPLATE template0 OWNER {self.owner}", "postgres")

    def restore(self, dump: Path, name: str) -> None:
        """Restore by hand into an empty database, only with the app's permissions, because the app wrote the dump.

        As docs/how-to/restore-by-hand.md says, the restore omits the extension amcheck, which only a superuser can
        create.
        """
        inside = f"docker exec -i {self.container}"
        load = f"pg_restore --exit-on-error --no-owner --use-list=/tmp/objects -U {self.login} -d {name}"
        self.droplet.check_output(
            f"{inside} pg_restore --list < {dump} | grep -v ' EXTENSION ' | {inside} sh -c 'cat > /tmp/objects' && "
            f"{inside} {load} < {dump}"
        )

    def psql(self, name: str = "") -> str:
        """Return a psql command that takes SQL on standard input."""
        return self._psql("postgres" if name == "postgres" else self.login, name or self.name)

    def over_ssh(self, name: str = "") -> list[str]:
        return ["ssh", "-F", ".lab/ssh_config", self.droplet.backend.get_hostname(), f"sudo {self.psql(name)}"]

    def _psql(self, role: str, name: str) -> str:
        return f"docker exec -i {self.container} psql -qtAX -v ON_ERROR_STOP=1 -U {role} -d {name}"


def live_database(lab: Environment, droplet: Host) -> Database:
    values, container = lab.settings.values, lab.settings.paths.docker.data_container("postgres")
    return Database(droplet, container, values.database, values.database_user, lab.settings.login_role)


def connected(lab: Environment) -> tuple[Host, Database]:
    """Connect again, because the machine may have been killed."""
    droplet = lab.reconnect(DROPLET.name)
    return droplet, live_database(lab, droplet)


def backups(droplet: Host) -> list[dict[str, Any]]:
    """Return the backups, oldest first."""
    return list(json.loads(droplet.check_output("stackctl list-backups --json")))


def proven(droplet: Host) -> list[str]:
    """Return the IDs of the verified backups."""
    return [one["id"] for one in backups(droplet) if one["verified"]]


def problems(droplet: Host) -> list[str]:
    return list(status(droplet)["problems"])


def leftovers(droplet: Host) -> str:
    """Return the leftovers of runs. Every run must remove its leftovers."""
    return str(droplet.check_output("ls -d /opt/backups/*.partial; docker ps -aq --filter name=-verify-; true"))
