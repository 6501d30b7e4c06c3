"""PostgreSQL, asked on its container's own socket: no password is needed there, and none is shown.

The names that its statements are built from are checked where they come from (deploys/settings.py), or are our own.
"""
# ruff: noqa: S608

from dataclasses import dataclass
from pathlib import Path

from .config import Data
from .docker import Docker
from .errors import FailedError
from .machine import TIMED_OUT, Result
from .paths import Paths

# What it has for itself, besides our releases' connections (PostgreSQL's superuser_reserved_connections).
ROOM = """SELECT current_setting('server_version_num')::int / 10000,
 current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - count(*),
 pg_database_size(current_database()) FROM pg_stat_activity WHERE backend_type = 'client backend'"""
DUMPS = "stackctl-backup"
"""Names our dumps to PostgreSQL, so that one whose caller was killed is found again."""


@dataclass(frozen=True)
class Room:
    """How PostgreSQL does."""

    major: int
    connections: int
    """Still free."""
    database_bytes: int


@dataclass(frozen=True)
class Postgres:
    """The one in the data project."""

    docker: Docker
    paths: Paths
    data: Data

    def query(self, sql: str) -> str:
        """Rows of columns between |. Raises FailedError."""
        psql = ["psql", "-tAX", "-v", "ON_ERROR_STOP=1", "--username=postgres", f"--dbname={self.data.database}"]
        return self.docker.call("docker exec psql", self._inside(*psql, "-c", sql)).stdout.strip()

    def room(self) -> Room:
        return Room(*map(int, self.query(ROOM).split("|")))

    def dump(self, target: Path, seconds: int) -> None:
        """The database in custom format."""
        self._write(target, seconds, "pg_dump", "--format=custom", f"--dbname={self.data.database}")

    def globals(self, target: Path, seconds: int) -> None:
        """Roles, as SQL, without their passwords: those stand in the operator's env file."""
        self._write(target, seconds, "pg_dumpall", "--globals-only", "--no-role-passwords")

    def listing(self, dump: Path) -> list[str]:
        """The dump's table of contents. Raises FailedError when it can't be read whole."""
        listed = self.docker.machine.run(self._inside("pg_restore", "--list"), timeout=300, stdin=dump)
        if listed.code:
            raise FailedError(f"{dump} can't be read: {listed.reason}")
        return [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]

    def end_dumps(self) -> None:
        """Those that an earlier call left: a `docker exec` outlives its client (docker/cli #5309)."""
        others = f"application_name = '{DUMPS}' AND pid <> pg_backend_pid()"
        self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def forget_logins(self, needed: set[str]) -> None:
        """Drop the login roles of passwords that no kept environment has any more."""
        owner = self.data.owner
        roles = self.query(f"SELECT rolname FROM pg_roles WHERE rolname ~ '^{owner}_[0-9a-f]{{8}}$'").split()
        for role in set(roles) - needed:
            self.query(f"REASSIGN OWNED BY {role} TO {owner}; DROP OWNED BY {role}; DROP ROLE {role}")

    def _write(self, target: Path, seconds: int, *command: str) -> None:
        argv = self._inside(*command, "--username=postgres")
        ran: Result = self.docker.machine.run(argv, timeout=seconds, stdout=target)
        if ran.code == TIMED_OUT:
            self.end_dumps()
        if ran.code:
            raise FailedError(f"docker exec {command[0]}: {ran.reason}", ran.tail())

    def _inside(self, *command: str) -> list[str]:
        container = f"{self.paths.data_project}-postgres-1"
        return ["docker", "exec", "-i", "--user", "postgres", "--env", f"PGAPPNAME={DUMPS}", container, *command]
