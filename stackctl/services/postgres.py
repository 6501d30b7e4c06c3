"""PostgreSQL, asked on its container's own socket: no password is needed there, and none is shown.

The app's roles are not trusted. They may leave functions, operators, settings and indexes in the app's database, and a
superuser who comes by would run or obey them (CVE-2018-1058; PostgreSQL's manual, 5.9.6). Therefore:

- Each session gets SESSION. What a client asks for beats what ALTER DATABASE and ALTER ROLE say.
- We ask in the database `postgres`, where the app owns nothing. Our statements in the app's database name schemas and
  operators in full.
- Tables are counted by READER, who may read everything and change nothing, and by COPY. `SELECT count(*)` has the
  planner run a function of the app's, with the rights of who asks: it folds constants in the expressions of indexes.
- The superuser goes into the app's database by PostgreSQL's own programs, which guard themselves (pg_dump, pg_amcheck),
  and to take login roles away.

The names that its statements are built from are checked where they come from (config/values.py), or are our own.
"""
# ruff: noqa: S608

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stackctl.core.config import Data
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from stackctl.core.program import Conversation, Result
from stackctl.services.docker import Docker

SESSION = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "row_security": "off",  # an error rather than fewer rows
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
"""Of the settings that a database's owner or a role may leave, those that change what we ask or how we are answered."""
OF_SUPERUSER = {**SESSION, "lc_messages": "C"}
"""Who is no superuser may not set the language of messages."""
DUMPS = "stackctl-backup"
"""Names our dumps to PostgreSQL, so that one whose caller was killed is found again."""
ADMIN = "postgres"
"""The database to be in while others are made, renamed and dropped."""
SUPERUSER = "postgres"
PRIVILEGES = ("CREATE", "CONNECT", "TEMPORARY")
"""What the app's owner role may do with the database, which is the superuser's: its settings are not the app's."""
READER = "stackctl_reader"
"""Reads all tables, and counts them. It has no password, and is not valid: only the container's socket admits it."""
PSQL = ("psql", "-qtAX", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse", "-v", "SHOW_CONTEXT=never")
QUERY_TIMEOUT = 60
LONG_TIMEOUT = 600
COUNT_TIMEOUT = 3600
LOCK_TIMEOUT_MS = 500
"""Below deadlock_timeout (1 s), at which PostgreSQL might end the app's transaction rather than ours."""
DUMP_LOCKS_MS, DUMP_LOCK_MS = 2000, 5
"""What pg_dump may take to lock all tables, and each of them, which are locked already. It waits for one only behind
somebody who waits for us, so it has to give up. Its --lock-wait-timeout is a statement_timeout."""
LOCK_PATIENCE = 120
"""Seconds in which all tables have to be locked together once."""
FEWEST_TRIES = 3
# What a transaction of somebody else's makes of a dump. It is tried again.
DISTURBED = re.compile(
    "lock timeout|statement timeout|deadlock detected|cache lookup failed|could not open relation|"
    "relation .* does not exist"
)
READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# transaction_timeout is PostgreSQL 17's: an older one refuses to start a session that names it.
NO_TIMEOUT = """SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s
 WHERE s.name OPERATOR(pg_catalog.=) 'transaction_timeout'"""
# An extension's own tables come with the extension, not with a dump: they are locked, and not counted. To count is to
# read a column: the shortest one of a type of PostgreSQL's own.
TABLES = """SELECT pg_catalog.json_build_array(
 c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
 (SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped AND a.attgenerated OPERATOR(pg_catalog.=) ''
 ORDER BY a.atttypid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid, a.attlen OPERATOR(pg_catalog.<) 0,
 a.attlen, a.attnum LIMIT 1),
 c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
 WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
 AND d.objid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'))
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
 WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
 AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
 AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema' AND n.nspname OPERATOR(pg_catalog.!~) '^pg_'
 ORDER BY n.nspname, c.relname;"""
WAITED_FOR = """SELECT l.relation::pg_catalog.int8 FROM pg_catalog.pg_locks l
 WHERE NOT l.granted AND l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' AND l.relation IS NOT NULL;"""
# What it has for itself, besides our releases' connections (PostgreSQL's superuser_reserved_connections).
ROOM = """SELECT current_setting('server_version_num')::int / 10000,
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
class Room:
    """Free capacity of the PostgreSQL server."""

    major: int
    connections: int
    """Still free."""
    database_bytes: int


class Table(NamedTuple):
    oid: int
    schema: str
    name: str
    column: str | None
    """The one to read for a count; None where there is none but generated ones."""
    counted: bool
    """Its rows are its own: it is not the head of partitions, and no extension's."""

    @property
    def key(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"


class _DisturbedError(FailedError):
    """Somebody else changed or held a table meanwhile: the same again may go well."""


@dataclass(frozen=True)
class Snapshot:
    """A database as it was at one moment, for as long as psql holds it."""

    psql: Conversation
    name: str
    """For others that are to see the same."""
    tables: tuple[Table, ...]

    def rows(self) -> dict[str, int]:
        """Count the rows of each table, by schema.table.

        Each table is counted within a savepoint. Going back to it lets go of the table, of which there may be more than
        a throwaway server can remember locks for (max_locks_per_transaction).
        """
        return {table.key: self._rows_of(table) for table in self.tables if table.counted}

    def waited_for(self) -> str:
        """Name a table that somebody waits to have alone."""
        wanted = set(_ask(self.psql, WAITED_FOR, QUERY_TIMEOUT))
        return next((table.key for table in self.tables if str(table.oid) in wanted), "a table")

    def _rows_of(self, table: Table) -> int:
        column = f" ({_quoted(table.column)})" if table.column else ""
        copy = f"COPY {table.quoted}{column} TO STDOUT \\g /dev/null\n\\echo :ROW_COUNT"
        try:
            (rows,) = _ask(self.psql, f"SAVEPOINT a;\n{copy}\nROLLBACK TO SAVEPOINT a;", COUNT_TIMEOUT)
            return int(rows)
        except FailedError as error:
            raise FailedError(f"{table.key} can't be counted: {error}") from None


@dataclass(frozen=True)
class Server:
    """A PostgreSQL in a container. Everything raises FailedError."""

    docker: Docker
    container: str

    def query(self, database: str, sql: str, timeout: float = QUERY_TIMEOUT) -> str:
        """Ask as the superuser; rows of columns between |."""
        argv = self.inside(*PSQL, f"--username={SUPERUSER}", f"--dbname={database}", "-c", sql)
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
        with self.snapshot(database) as one:
            return one.rows()

    @contextmanager
    def snapshot(self, database: str) -> Iterator[Snapshot]:
        """See one moment of a database until the `with` ends. No table is locked: it is for a database at rest."""
        with self._reading(database) as psql:
            _ask(psql, f"{READ_ONLY};", QUERY_TIMEOUT)
            yield _exported(psql)

    @contextmanager
    def locked(self, database: str) -> Iterator[Snapshot]:
        """The same of one that is in use, with all its tables locked against TRUNCATE, DROP and rewriting ALTERs.

        These are not MVCC-safe: a snapshot older than one of them sees an empty table (PostgreSQL's manual, 13.6).
        LOCK takes no snapshot, so the snapshot is younger than all locks. Raises _DisturbedError when a lock is not
        granted at once: to wait longer would hold up what waits for the tables that are locked already.
        """
        machine = self.docker.machine
        deadline = machine.monotonic() + LOCK_PATIENCE
        with self._reading(database) as psql:
            meant = _tables(psql)
            _ask(psql, f"SET lock_timeout = {LOCK_TIMEOUT_MS}; {READ_ONLY};", QUERY_TIMEOUT)
            for table in meant:
                try:
                    _ask(psql, f"LOCK TABLE ONLY {table.quoted} IN ACCESS SHARE MODE;", QUERY_TIMEOUT)
                except FailedError as error:
                    if DISTURBED.search(str(error)):
                        raise _DisturbedError(f"{table.key} can't be locked: {error}") from None
                    raise
                if machine.monotonic() > deadline:  # somebody may hold up each of thousands for a little while
                    raise _DisturbedError(f"not all tables are locked after {LOCK_PATIENCE} s")
            snapshot = _exported(psql)
            if snapshot.tables != meant:
                raise _DisturbedError("tables came or went before all were locked")
            yield snapshot

    def write(self, target: Path, seconds: int, *command: str) -> None:
        """What a program beside it writes, into a file."""
        argv = self.inside(*command, f"--username={SUPERUSER}")
        ran = self.docker.machine.run(argv, timeout=seconds, stdout=target)
        if ran.code:
            raise FailedError(f"docker exec {command[0]}: {ran.reason}", ran.tail())

    def listing(self, dump: Path) -> list[str]:
        """The dump's table of contents."""
        listed = self.docker.machine.run(self.inside("pg_restore", "--list"), timeout=300, stdin=dump)
        if listed.code:
            raise FailedError(f"{dump} can't be read: {listed.reason}")
        return [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]

    def inside(self, *command: str, settings: Mapping[str, str] = OF_SUPERUSER) -> list[str]:
        """The command line of a program that runs beside it, in a session with these settings."""
        set_there = ("--env", f"PGAPPNAME={DUMPS}", "--env", f"PGOPTIONS={session(settings)}")
        return ["docker", "exec", "-i", "--user", "postgres", *set_there, self.container, *command]

    @contextmanager
    def _reading(self, database: str) -> Iterator[Conversation]:
        """A session of READER's, who is made when it isn't there yet."""
        self.query(ADMIN, MAKE_READER.format(database=database))
        argv = self.inside(*PSQL, f"--username={READER}", f"--dbname={database}", settings=SESSION)
        with self.docker.machine.conversation(argv) as psql:
            _ask(psql, f"SET client_min_messages = error; {NO_TIMEOUT} \\g /dev/null", QUERY_TIMEOUT)
            yield psql


@dataclass(frozen=True)
class Postgres:
    """The one in the data project."""

    docker: Docker
    paths: Paths
    data: Data

    @property
    def server(self) -> Server:
        return Server(self.docker, self.paths.docker.data_container("postgres"))

    def query(self, sql: str) -> str:
        """Rows of columns between |. Raises FailedError."""
        return self.server.query(ADMIN, sql)

    def room(self) -> Room:
        return Room(*map(int, self.query(ROOM.format(database=self.data.database)).split("|")))

    def dump(self, target: Path, seconds: int) -> dict[str, int]:
        """The database in custom format; the rows that each of its tables has in it.

        Dump and counts see one snapshot, whose tables are locked until all are counted. What others do to the tables at
        the wrong moment is waited for, with no table locked meanwhile.
        """
        machine = self.docker.machine
        deadline, tries = machine.monotonic() + LOCK_PATIENCE, 0
        while True:
            tries += 1
            try:
                return self._dump_at_once(target, seconds)
            except _DisturbedError as error:
                self.end_dumps()
                if tries >= FEWEST_TRIES and machine.monotonic() > deadline:
                    raise FailedError(
                        f"{error}. Tried {tries} times in {LOCK_PATIENCE} s. Next: see who holds or changes it "
                        "(pg_stat_activity), then again"
                    ) from None
                machine.sleep(1)

    def globals(self, target: Path, seconds: int) -> None:
        """Roles, as SQL, without their passwords: those stand in the operator's env file."""
        self._write(target, seconds, "pg_dumpall", "--globals-only", "--no-role-passwords")

    def check(self, seconds: int) -> Result:
        """How pg_amcheck ended: well when all tables and indexes are whole, else with what is damaged."""
        told = (f"--username={SUPERUSER}", "--install-missing", "--heapallindexed", self.data.database)
        return self.docker.machine.run(self.server.inside("pg_amcheck", *told), timeout=seconds)

    def end_dumps(self) -> None:
        """Those that an earlier call left: a `docker exec` outlives its client (docker/cli #5309). And `check`."""
        others = f"application_name = '{DUMPS}' AND pid <> pg_backend_pid()"
        self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    def forget_logins(self, needed: set[str]) -> None:
        """Drop the login roles of passwords that no kept environment has any more.

        Each is shut out first, so that whatever it left can't keep its password alive. What it owns goes to the owner
        role, in each database where it owns something: any role may make large objects wherever it can connect.
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
            _refuse_one_key_for_two(snapshot.tables)
            patience = DUMP_LOCKS_MS + DUMP_LOCK_MS * len(snapshot.tables)
            asked = (f"--snapshot={snapshot.name}", f"--lock-wait-timeout={patience}")
            try:
                self.server.write(
                    target, seconds, "pg_dump", "--format=custom", *asked, f"--dbname={self.data.database}"
                )
            except FailedError as error:
                if not DISTURBED.search(f"{error}"):
                    with suppress(FailedError):
                        self.end_dumps()
                    raise
                raise _DisturbedError(f"{snapshot.waited_for()} can't be dumped: {error}", error.tail) from None
            return snapshot.rows()

    def _write(self, target: Path, seconds: int, *command: str) -> None:
        try:
            self.server.write(target, seconds, *command)
        except FailedError:
            with suppress(FailedError):
                self.end_dumps()
            raise


def session(settings: Mapping[str, str]) -> str:
    """The value of PGOPTIONS that makes these a session's own."""
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _exported(psql: Conversation) -> Snapshot:
    (name,) = _ask(psql, "SELECT pg_catalog.pg_export_snapshot();", QUERY_TIMEOUT)
    return Snapshot(psql, name, _tables(psql))


def _tables(psql: Conversation) -> tuple[Table, ...]:
    """Whose rows a dump has."""
    return tuple(Table(*json.loads(line)) for line in _ask(psql, TABLES, QUERY_TIMEOUT))


def _refuse_one_key_for_two(tables: Iterable[Table]) -> None:
    """Of two tables with one key the manifest would have the rows of one, and nobody would miss the other's."""
    known: dict[str, Table] = {}
    for table in tables:
        other = known.setdefault(table.key, table) if table.counted else table
        if other is not table:
            raise FailedError(
                f"{other.quoted} and {table.quoted} are both {table.key} in a manifest, so their rows can't be told "
                "apart. Nothing was dumped. Next: rename one of them, so that its name has no dot, then again"
            )


def _ask(psql: Conversation, sql: str, timeout: float) -> list[str]:
    """psql's own \\echo says where the answer ends."""
    return psql.ask(f"{sql}\n\\echo {_END}\n", _END, timeout)


_END = "-- the answer ends here"
