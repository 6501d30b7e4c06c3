"""The client of PostgreSQL.

The client uses the socket in PostgreSQL's container, because the socket needs no password, and no password can leak.

The app's roles are not trusted. The app's roles may leave functions, operators, settings and indexes in the app's
database. The session of a superuser in the app's database could run such functions and obey such settings
(CVE-2018-1058; PostgreSQL's manual, 5.9.6). Therefore:

- Each session gets the settings in SESSION. The settings of a session override the settings from ALTER DATABASE and
  ALTER ROLE.
- Statements run in the database `postgres`, where the app owns nothing. Statements that must run in the app's database
  name schemas and operators in full.
- READER reads and counts the tables (postgres_snapshot.py). The role READER may read everything and change nothing.
- The superuser connects to the app's database only through PostgreSQL's own programs that protect themselves (pg_dump,
  pg_amcheck), and to remove login roles.

Every name in a statement of this module is either a constant, or was checked when the site declared the name
(config/values.py).
"""
# ruff: noqa: S608

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stackctl.core.config import Data
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from stackctl.core.program import Conversation, Result
from stackctl.services import postgres_snapshot
from stackctl.services.docker import Docker
from stackctl.services.postgres_snapshot import DISTURBED, LOCK_TIMEOUT_S, NO_TIMEOUT, DisturbedError, Snapshot, ask

SESSION = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "row_security": "off",  # with this setting, a row policy causes an error instead of hiding rows
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "exit_on_error": "off",
    "local_preload_libraries": "",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
}
"""Settings that a database's owner or a role may leave behind, and that would change our statements or the answers."""
OF_SUPERUSER = {**SESSION, "lc_messages": "C"}
"""The settings of a superuser's session. Only a superuser may set the language of messages."""
DUMPS = "stackctl-backup"
"""The application name of our sessions. By this name, the sessions of a killed caller are found."""
ADMIN = "postgres"
"""The database that we connect to while other databases are created, renamed and dropped."""
SUPERUSER = "postgres"
PRIVILEGES = ("CREATE", "CONNECT", "TEMPORARY")
"""What the app's owner role may do in the database. A superuser owns the database, so the app cannot change its
settings."""
READER = "stackctl_reader"
"""The role that reads and counts all tables. READER has no valid password, so only the container's socket admits it."""
PSQL = ("psql", "-qtAX", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse", "-v", "SHOW_CONTEXT=never")
QUERY_TIMEOUT = postgres_snapshot.QUERY_TIMEOUT
LONG_TIMEOUT = 600
DUMP_LOCKS_MS, DUMP_LOCK_MS = 2000, 5
"""pg_dump must lock all tables within DUMP_LOCKS_MS, plus DUMP_LOCK_MS for each table. We already hold locks on them,
so pg_dump waits only behind another session that waits for us. Then pg_dump must give up, because we wait for pg_dump.
The option --lock-wait-timeout sets a statement_timeout."""
FEWEST_TRIES = 3
# PostgreSQL reserves superuser_reserved_connections for superusers, so a release cannot use these connections.
CAPACITY = """SELECT current_setting('server_version_num')::int / 10000,
 current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - count(*),
 pg_database_size('{database}') FROM pg_stat_activity WHERE backend_type = 'client backend'"""
MAKE_READER = f"""DO $$BEGIN
IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN CREATE ROLE {READER}; END IF;
IF NOT EXISTS (SELECT FROM pg_authid WHERE rolname = '{READER}' AND rolcanlogin AND rolbypassrls AND rolinherit
 AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication)
 AND rolpassword IS NULL AND rolvaliduntil = '-infinity') THEN
ALTER ROLE {READER} LOGIN BYPASSRLS INHERIT NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION
 PASSWORD NULL VALID UNTIL '-infinity'; END IF;
IF NOT pg_has_role('{READER}', 'pg_read_all_data', 'USAGE') THEN GRANT pg_read_all_data TO {READER}; END IF;
IF NOT has_database_privilege('{READER}', '{{database}}', 'CONNECT') THEN
GRANT CONNECT ON DATABASE "{{database}}" TO {READER}; END IF;
END$$"""


@dataclass(frozen=True)
class Capacity:
    """Free capacity of the PostgreSQL server."""

    major: int
    connections: int
    """Connections that are still free."""
    database_bytes: int


@dataclass(frozen=True)
class Server:
    """A PostgreSQL in a container. All methods raise FailedError."""

    docker: Docker
    container: str

    def query(self, database: str, sql: str, timeout: float = QUERY_TIMEOUT) -> str:
        """Run SQL as the superuser. Return a line for each row, with | between the columns."""
        argv = self.inside(*PSQL, f"--username={SUPERUSER}", f"--dbname={database}", "-c", sql)
        return self.docker.call("docker exec psql failed", argv, timeout=timeout).stdout.strip()

    def databases(self) -> list[str]:
        return self.query(ADMIN, "SELECT datname FROM pg_database").splitlines()

    def comment(self, database: str) -> str:
        """Return the comment on a database, or "" if the database has no comment."""
        told = "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
        return self.query(ADMIN, f"{told} WHERE datname = '{database}'")

    def drop(self, database: str) -> None:
        """Drop a database if it exists, and end the sessions in it."""
        self.query(ADMIN, f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', LONG_TIMEOUT)

    def rename(self, *names: tuple[str, str]) -> None:
        """Rename databases in one transaction, and end their sessions. Each pair is an old and a new name."""
        every = ", ".join(f"'{one}'" for pair in names for one in pair)
        throw_out = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({every})"
        renames = [f'ALTER DATABASE "{one}" RENAME TO "{other}"' for one, other in names]
        self.query(ADMIN, "; ".join(["BEGIN", throw_out, *renames, "COMMIT"]))

    def rows(self, database: str) -> dict[str, int]:
        """Return the number of rows of each schema.table in a database that is not in use."""
        with self.snapshot(database) as one:
            return one.rows()

    @contextmanager
    def snapshot(self, database: str) -> Iterator[Snapshot]:
        """Hold a snapshot of a database that is not in use. No table is locked."""
        with self._reading(database) as psql:
            yield postgres_snapshot.at_rest(psql)

    @contextmanager
    def locked(self, database: str) -> Iterator[Snapshot]:
        """Hold a snapshot of a database that is in use, with all tables locked. Raises DisturbedError."""
        with self._reading(database) as psql:
            yield postgres_snapshot.locked(psql, self.docker.machine.monotonic)

    def write(self, target: Path, seconds: int, *command: str) -> None:
        """Write the output of a program in the container to a file."""
        argv = self.inside(*command, f"--username={SUPERUSER}")
        ran = self.docker.machine.run(argv, timeout=seconds, stdout=target)
        if ran.code:
            raise FailedError(f"docker exec {command[0]} failed: {ran.reason}", ran.tail())

    def listing(self, dump: Path) -> list[str]:
        """Return the table of contents of a dump."""
        listed = self.docker.machine.run(self.inside("pg_restore", "--list"), timeout=300, stdin=dump)
        if listed.code:
            raise FailedError(f"{dump} can't be read: {listed.reason}")
        return [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]

    def inside(self, *command: str, settings: Mapping[str, str] = OF_SUPERUSER) -> list[str]:
        """Return the command line that runs a program in the container. The program's session gets these settings."""
        set_there = ("--env", f"PGAPPNAME={DUMPS}", "--env", f"PGOPTIONS={session(settings)}")
        return ["docker", "exec", "-i", "--user", "postgres", *set_there, self.container, *command]

    @contextmanager
    def _reading(self, database: str) -> Iterator[Conversation]:
        """Open a session as READER. If the role READER is missing, first create the role."""
        self.query(ADMIN, MAKE_READER.format(database=database))
        argv = self.inside(*PSQL, f"--username={READER}", f"--dbname={database}", settings=SESSION)
        with self.docker.machine.interactive(argv) as psql:
            ask(psql, f"SET client_min_messages = error; {NO_TIMEOUT} \\g /dev/null")
            yield psql


@dataclass(frozen=True)
class Postgres:
    """The PostgreSQL of the data project."""

    docker: Docker
    paths: Paths
    data: Data

    @property
    def server(self) -> Server:
        return Server(self.docker, self.paths.docker.data_container("postgres"))

    def query(self, sql: str) -> str:
        """Run SQL as the superuser, outside the app's database. Return a line for each row. Raises FailedError."""
        return self.server.query(ADMIN, sql)

    def capacity(self) -> Capacity:
        return Capacity(*map(int, self.query(CAPACITY.format(database=self.data.database)).split("|")))

    def dump(self, target: Path, seconds: int) -> dict[str, int]:
        """Dump the database in custom format. Return the number of rows of each table in the dump.

        The dump and the counts use the same PostgreSQL snapshot, and the tables stay locked until all tables are
        counted. If another session changes tables at the wrong moment, this method releases all locks, waits, and tries
        again.
        """
        machine = self.docker.machine
        deadline, tries = machine.monotonic() + LOCK_TIMEOUT_S, 0
        while True:
            tries += 1
            try:
                return self._dump_at_once(target, seconds)
            except DisturbedError as error:
                self.end_dumps()
                if tries >= FEWEST_TRIES and machine.monotonic() > deadline:
                    raise FailedError(
                        f"{error.message}. stackctl tried {tries} times in {LOCK_TIMEOUT_S} s",
                        next_step="find out which session locks or changes the tables (pg_stat_activity)",
                    ) from None
                machine.sleep(1)

    def globals(self, target: Path, seconds: int) -> None:
        """Write the roles as SQL, without their passwords, which are in the operator's env file."""
        try:
            self.server.write(target, seconds, "pg_dumpall", "--globals-only", "--no-role-passwords")
        except FailedError:
            self._try_to_end_dumps()
            raise

    def check(self, seconds: int) -> Result:
        """Run pg_amcheck. The output names damaged tables and indexes."""
        told = (f"--username={SUPERUSER}", "--install-missing", "--heapallindexed", self.data.database)
        return self.docker.machine.run(self.server.inside("pg_amcheck", *told), timeout=seconds)

    def end_dumps(self) -> None:
        """End the sessions of earlier dumps and checks.

        A session may remain after its `docker exec` client has ended, because the program in the container continues
        (docker/cli #5309).
        """
        others = f"application_name = '{DUMPS}' AND pid <> pg_backend_pid()"
        self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def forget_logins(self, needed: set[str]) -> None:
        """Drop the login roles whose passwords are in none of the app environments that are kept.

        First each role loses its login, so that no session can set the role's password again. The objects of the role
        go to the owner role in every database, because a role may create large objects in any database to which the
        role can connect.
        """
        owner, server = self.data.owner, self.server
        ours = re.compile(rf"{re.escape(owner)}_[0-9a-f]{{8}}")
        for role in self.query("SELECT rolname FROM pg_roles").splitlines():
            if not ours.fullmatch(role) or role in needed:
                continue
            self.query(
                f'ALTER ROLE "{role}" NOLOGIN PASSWORD NULL; '
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            )
            owns = f"FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid WHERE s.refobjid = '\"{role}\"'::regrole"
            for database in self.query(f"SELECT DISTINCT datname {owns} AND datallowconn").splitlines():
                server.query(database, f'REASSIGN OWNED BY "{role}" TO "{owner}"; DROP OWNED BY "{role}"')
            self.query(f'REASSIGN OWNED BY "{role}" TO "{owner}"; DROP OWNED BY "{role}"; DROP ROLE "{role}"')

    def _dump_at_once(self, target: Path, seconds: int) -> dict[str, int]:
        with self.server.locked(self.data.database) as snapshot:
            postgres_snapshot.refuse_one_key_for_two(snapshot.tables)
            self._dump_snapshot(snapshot, target, seconds)
            return snapshot.rows()

    def _dump_snapshot(self, snapshot: Snapshot, target: Path, seconds: int) -> None:
        timeout = DUMP_LOCKS_MS + DUMP_LOCK_MS * len(snapshot.tables)
        asked = (f"--snapshot={snapshot.name}", f"--lock-wait-timeout={timeout}", f"--dbname={self.data.database}")
        try:
            self.server.write(target, seconds, "pg_dump", "--format=custom", *asked)
        except FailedError as error:
            if DISTURBED.search(str(error)):
                raise DisturbedError(f"{snapshot.waited_for()} can't be dumped: {error.message}", error.tail) from None
            self._try_to_end_dumps()
            raise

    def _try_to_end_dumps(self) -> None:
        with suppress(FailedError):
            self.end_dumps()


def session(settings: Mapping[str, str]) -> str:
    """Return the value of PGOPTIONS that gives a session these settings."""
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
