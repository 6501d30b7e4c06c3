"""Takes snapshots of a database through psql. A snapshot shows all tables at one moment.

The rows of a table are counted by COPY. `SELECT count(*)` would let the planner run functions of the app with the
caller's rights, because the planner folds constants in the expressions of indexes. Statements name schemas and
operators in full.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from stackctl.core.errors import FailedError
from stackctl.core.program import Conversation

QUERY_TIMEOUT = 60
COUNT_TIMEOUT = 3600
LOCK_TIMEOUT_MS = 500
"""Less than deadlock_timeout (1 s), after which PostgreSQL might abort the app's transaction instead of ours."""
LOCK_TIMEOUT_S = 120
"""Within this many seconds, all tables must be locked at the same time."""
# Errors that other transactions cause in our transaction. After an error of this kind, the dump is tried again.
DISTURBED = re.compile(
    "lock timeout|statement timeout|deadlock detected|cache lookup failed|could not open relation|"
    "relation .* does not exist"
)
READ_ONLY = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# transaction_timeout came with PostgreSQL 17. An older server refuses a session that names this setting.
NO_TIMEOUT = """SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s
 WHERE s.name OPERATOR(pg_catalog.=) 'transaction_timeout'"""
# The tables of an extension are not part of a dump, so these tables are locked but not counted. A count reads only one
# column, if possible the shortest column with a built-in type.
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


class DisturbedError(FailedError):
    """Another transaction changed or locked a table in the meantime. A second try may succeed."""


class Table(NamedTuple):
    """A table whose rows a dump contains."""

    oid: int
    schema: str
    name: str
    column: str | None
    """The column to read for a count, or None if all columns are generated."""
    counted: bool
    """Whether the rows are counted. A partitioned table has no rows of its own, and an extension brings its rows."""

    @property
    def key(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"


@dataclass(frozen=True)
class Snapshot:
    """The state of a database at one moment. The snapshot lasts as long as the session of psql."""

    psql: Conversation
    name: str
    """Name under which other sessions can see the same snapshot."""
    tables: tuple[Table, ...]

    def rows(self) -> dict[str, int]:
        """Return the number of rows of each schema.table.

        The rows of each table are counted within a savepoint. Rolling back to the savepoint releases the table's lock.
        Without this release, a database with many tables would exceed max_locks_per_transaction of a throwaway server.
        """
        return {table.key: self._rows_of(table) for table in self.tables if table.counted}

    def waited_for(self) -> str:
        """Return a table for which another session waits to get an exclusive lock."""
        wanted = set(ask(self.psql, WAITED_FOR))
        return next((table.key for table in self.tables if str(table.oid) in wanted), "a table")

    def _rows_of(self, table: Table) -> int:
        column = f" ({_quoted(table.column)})" if table.column else ""
        copy = f"COPY {table.quoted}{column} TO STDOUT \\g /dev/null\n\\echo :ROW_COUNT"
        try:
            (rows,) = ask(self.psql, f"SAVEPOINT a;\n{copy}\nROLLBACK TO SAVEPOINT a;", COUNT_TIMEOUT)
            return int(rows)
        except FailedError as error:
            raise FailedError(f"the rows of {table.key} can't be counted: {error}") from None


def at_rest(psql: Conversation) -> Snapshot:
    """Take a snapshot of a database that is not in use, without locking tables."""
    ask(psql, f"{READ_ONLY};")
    return _exported(psql)


def locked(psql: Conversation, monotonic: Callable[[], float]) -> Snapshot:
    """Take a snapshot of a database in use, with all tables locked against TRUNCATE, DROP and rewriting ALTERs.

    TRUNCATE and rewriting ALTERs are not MVCC-safe: a snapshot from before such a command sees an empty table
    (PostgreSQL's manual, 13.6). The snapshot is taken after all locks, because LOCK itself takes no snapshot. Raises
    DisturbedError if a lock is not granted almost immediately, because a longer wait would block other sessions that
    need the tables already locked.
    """
    deadline = monotonic() + LOCK_TIMEOUT_S
    wanted = _tables(psql)
    ask(psql, f"SET lock_timeout = {LOCK_TIMEOUT_MS}; {READ_ONLY};")
    for table in wanted:
        _lock(psql, table)
        if monotonic() > deadline:  # each wait is short, but there may be thousands of locks
            raise DisturbedError(f"not all tables are locked after {LOCK_TIMEOUT_S} s")
    snapshot = _exported(psql)
    if snapshot.tables != wanted:
        raise DisturbedError("tables were created or dropped before all tables were locked")
    return snapshot


def refuse_one_key_for_two(tables: Iterable[Table]) -> None:
    """Raise FailedError if two tables have the same key, because the manifest would then lack the rows of one table."""
    known: dict[str, Table] = {}
    for table in tables:
        other = known.setdefault(table.key, table) if table.counted else table
        if other is not table:
            raise FailedError(
                f"{other.quoted} and {table.quoted} would have the same name in a manifest: {table.key}. So their "
                "row counts could not be told apart. Nothing was dumped",
                next_step="rename one of the two tables, so that its name has no dot",
            )


def ask(psql: Conversation, sql: str, timeout: float = QUERY_TIMEOUT) -> list[str]:
    """Send SQL to psql, and return the lines that psql prints. A line from \\echo marks the end."""
    return psql.ask(f"{sql}\n\\echo {_END}\n", _END, timeout)


_END = "-- the answer ends here"


def _lock(psql: Conversation, table: Table) -> None:
    try:
        ask(psql, f"LOCK TABLE ONLY {table.quoted} IN ACCESS SHARE MODE;")
    except FailedError as error:
        if DISTURBED.search(str(error)):
            raise DisturbedError(f"{table.key} can't be locked: {error}") from None
        raise


def _exported(psql: Conversation) -> Snapshot:
    (name,) = ask(psql, "SELECT pg_catalog.pg_export_snapshot();")
    return Snapshot(psql, name, _tables(psql))


def _tables(psql: Conversation) -> tuple[Table, ...]:
    """Return the tables whose rows a dump contains."""
    return tuple(Table(*json.loads(line)) for line in ask(psql, TABLES))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
