"""PostgreSQL, asked on its container's own socket: no password is needed there, and none is shown.

The names that its statements are built from are checked where they come from (deploys/settings.py), or are our own.
"""
# ruff: noqa: S608

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .config import Data
from .docker import Docker
from .errors import FailedError
from .machine import Conversation, Result
from .paths import Paths

# What it has for itself, besides our releases' connections (PostgreSQL's superuser_reserved_connections).
ROOM = """SELECT current_setting('server_version_num')::int / 10000,
 current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - count(*),
 pg_database_size(current_database()) FROM pg_stat_activity WHERE backend_type = 'client backend'"""
DUMPS = "stackctl-backup"
"""Names our dumps to PostgreSQL, so that one whose caller was killed is found again."""
ADMIN = "postgres"
"""The database to be in while others are made, renamed and dropped."""
PSQL = ("psql", "-qtAX", "-v", "ON_ERROR_STOP=1")
QUERY_TIMEOUT = 60
LONG_TIMEOUT = 600
COUNT_TIMEOUT = 3600
# psql runs what this finds (\\gexec): a count of each table. JSON, since a name may have anything in it. An extension's
# own tables come with the extension, not with a dump.
COUNTS = """SELECT format(
 'SELECT json_build_array(%L, count(*)) FROM ONLY %s', nspname || '.' || relname, c.oid::regclass)
 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE relkind = 'r' AND relpersistence <> 't' AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%'
 AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
 ORDER BY 1 \\gexec"""
# A time-out of the database's own must not end what is held still for a dump.
HOLD_STILL = """SET client_min_messages = error; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();"""


@dataclass(frozen=True)
class Room:
    """How PostgreSQL does."""

    major: int
    connections: int
    """Still free."""
    database_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """A database as it was at one moment, for as long as psql holds it."""

    psql: Conversation
    name: str
    """For others that are to see the same."""

    def rows(self) -> dict[str, int]:
        """Of each table, by schema.table."""
        return dict(json.loads(line) for line in _ask(self.psql, COUNTS, COUNT_TIMEOUT))


@dataclass(frozen=True)
class Server:
    """A PostgreSQL in a container. Everything raises FailedError."""

    docker: Docker
    container: str

    def query(self, database: str, sql: str, timeout: float = QUERY_TIMEOUT) -> str:
        """Rows of columns between |."""
        argv = self.inside(*PSQL, "--username=postgres", f"--dbname={database}", "-c", sql)
        return self.docker.call("docker exec psql", argv, timeout=timeout).stdout.strip()

    def databases(self) -> list[str]:
        return self.query(ADMIN, "SELECT datname FROM pg_database").splitlines()

    def comment(self, database: str) -> str:
        """What it says of itself; nothing when there is none."""
        told = "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
        return self.query(ADMIN, f"{told} WHERE datname = '{database}'")

    def drop(self, database: str) -> None:
        """Where there is one; whoever is in it is thrown out."""
        self.query(ADMIN, f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', LONG_TIMEOUT)

    def rename(self, *names: tuple[str, str]) -> None:
        """From and to, all in one transaction: no name is without its database. Whoever is in one is thrown out."""
        every = ", ".join(f"'{one}'" for pair in names for one in pair)
        throw_out = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({every})"
        renames = [f'ALTER DATABASE "{one}" RENAME TO "{other}"' for one, other in names]
        self.query(ADMIN, "; ".join(["BEGIN", throw_out, *renames, "COMMIT"]))

    def rows(self, database: str) -> dict[str, int]:
        """Of each table, by schema.table, where nobody writes: one after the other, each with locks of its own."""
        with self.docker.machine.conversation(
            self.inside(*PSQL, "--username=postgres", f"--dbname={database}")
        ) as psql:
            return Snapshot(psql, "").rows()

    @contextmanager
    def snapshot(self, database: str) -> Iterator[Snapshot]:
        """Hold one still until the `with` ends."""
        argv = self.inside(*PSQL, "--username=postgres", f"--dbname={database}")
        with self.docker.machine.conversation(argv) as psql:
            yield Snapshot(psql, _ask(psql, HOLD_STILL, QUERY_TIMEOUT)[-1])

    def write(self, target: Path, seconds: int, *command: str) -> None:
        """What a program beside it writes, into a file."""
        argv = self.inside(*command, "--username=postgres")
        ran = self.docker.machine.run(argv, timeout=seconds, stdout=target)
        if ran.code:
            raise FailedError(f"docker exec {command[0]}: {ran.reason}", ran.tail())

    def read(self, source: Path, seconds: int, *command: str) -> None:
        """Have a program beside it read a file."""
        argv = self.inside(*command, "--username=postgres")
        ran = self.docker.machine.run(argv, timeout=seconds, stdin=source)
        if ran.code:
            raise FailedError(f"{command[0]} of {source.name}: {ran.reason}", ran.tail())

    def listing(self, dump: Path) -> list[str]:
        """The dump's table of contents."""
        listed = self.docker.machine.run(self.inside("pg_restore", "--list"), timeout=300, stdin=dump)
        if listed.code:
            raise FailedError(f"{dump} can't be read: {listed.reason}")
        return [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]

    def inside(self, *command: str) -> list[str]:
        """The command line of a program that runs beside it."""
        return ["docker", "exec", "-i", "--user", "postgres", "--env", f"PGAPPNAME={DUMPS}", self.container, *command]


@dataclass(frozen=True)
class Postgres:
    """The one in the data project."""

    docker: Docker
    paths: Paths
    data: Data

    @property
    def server(self) -> Server:
        return Server(self.docker, self.paths.data_container("postgres"))

    def query(self, sql: str) -> str:
        """Rows of columns between |. Raises FailedError."""
        return self.server.query(self.data.database, sql)

    def room(self) -> Room:
        return Room(*map(int, self.query(ROOM).split("|")))

    def dump(self, target: Path, seconds: int) -> dict[str, int]:
        """The database in custom format; the rows that each of its tables has in it."""
        with self.server.snapshot(self.data.database) as snapshot:
            asked = ("--format=custom", f"--snapshot={snapshot.name}", f"--dbname={self.data.database}")
            self._write(target, seconds, "pg_dump", *asked)
            return snapshot.rows()

    def globals(self, target: Path, seconds: int) -> None:
        """Roles, as SQL, without their passwords: those stand in the operator's env file."""
        self._write(target, seconds, "pg_dumpall", "--globals-only", "--no-role-passwords")
        # Every cluster has its superuser already: so psql can stop at the first error that is one.
        target.write_text(target.read_text().replace("CREATE ROLE postgres;\n", ""))

    def check(self, seconds: int) -> Result:
        """How pg_amcheck ended: well when all tables and indexes are whole, else with what is damaged."""
        told = ("--username=postgres", "--install-missing", "--heapallindexed", self.data.database)
        return self.docker.machine.run(self.server.inside("pg_amcheck", *told), timeout=seconds)

    def end_dumps(self) -> None:
        """Those that an earlier call left: a `docker exec` outlives its client (docker/cli #5309). And `check`."""
        others = f"application_name = '{DUMPS}' AND pid <> pg_backend_pid()"
        self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def forget_logins(self, needed: set[str]) -> None:
        """Drop the login roles of passwords that no kept environment has any more."""
        owner = self.data.owner
        roles = self.query(f"SELECT rolname FROM pg_roles WHERE rolname ~ '^{owner}_[0-9a-f]{{8}}$'").split()
        for role in set(roles) - needed:
            self.query(f"REASSIGN OWNED BY {role} TO {owner}; DROP OWNED BY {role}; DROP ROLE {role}")

    def _write(self, target: Path, seconds: int, *command: str) -> None:
        try:
            self.server.write(target, seconds, *command)
        except FailedError:
            with suppress(FailedError):
                self.end_dumps()
            raise


def _ask(psql: Conversation, sql: str, timeout: float) -> list[str]:
    """psql's own \\echo says where the answer ends."""
    return psql.ask(f"{sql}\n\\echo {_END}\n", _END, timeout)


_END = "-- the answer ends here"
