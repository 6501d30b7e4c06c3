"""PostgreSQL of a droplet in memory.

A fake database consists of row counts by table, and a dump is a real file with these counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackctl.core.program import Conversation, Result
from tests.support.fakes.declared import DATABASE
from tests.support.fakes.statements import refuse_unknown

OTHER_ROLES = ("postgres", "owner", "owner_reporting", "other_00000001")
UNANSWERED = ("DO $$", "ALTER ", "REASSIGN ", "CREATE ROLE ", "DROP ROLE", "SELECT pg_terminate_backend")
"""The beginnings of statements for which PostgreSQL returns no rows."""
NAMED = '"([a-z_][a-z0-9_]*)"'
"""The name of a database, as group_data and `restore --to-database` allow it."""
OF_LOADER = ("ANALYZE", "DROP ", "SET search_path = public; ADD ", "SET search_path = public; VALIDATE ")
"""The beginnings of the loader's statements, except its one query."""

Tables = dict[str, int]
"""The number of rows of each table."""


@dataclass
class Postgres:
    """A fake PostgreSQL that raises AssertionError for an unknown statement."""

    logins: set[str] = field(default_factory=lambda: {"owner_00000001"})
    """The login roles."""
    plain_roles: set[str] = field(default_factory=set)
    """Roles without any privileges."""
    roles: list[list[Any]] = field(default_factory=list)
    """The rows that PostgreSQL reports about roles' powers and settings (stackctl.host.roles)."""
    connections: int = 80
    """The number of free connections."""
    tables: Tables = field(default_factory=lambda: {"public.offers": 12, "public.users": 3})
    """The tables of the live database."""
    schema: str | None = None
    """The live database's revision."""
    beside: dict[str, Tables] = field(default_factory=dict)
    """The tables of the databases beside the live database."""
    schemas: dict[str, str | None] = field(default_factory=dict)
    """The revisions of the databases beside the live database."""
    comments: dict[str, str] = field(default_factory=dict)
    """The comments on databases."""
    sessions: set[str] = field(default_factory=set)
    """Databases that another session uses."""
    unloadable: dict[str, bool] = field(default_factory=dict)
    """Tables with a constraint that rejects their rows during a restore. True means a CHECK constraint."""
    unchecked: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of a database and an unloadable table whose constraint was dropped."""
    dumped_schema: str = ""
    """The SQL that pg_restore prints for the schema in a dump."""
    lost: Tables = field(default_factory=dict)
    """Wrong row counts that tables have after a restore."""

    def database(self, name: str) -> Tables:
        """Return the rows of the live database or of a database beside it."""
        return self.tables if name == DATABASE else self.beside[name]

    def run(
        self,
        program: str,
        arguments: list[str],
        stdin: Path | None,
        stdout: Path | None,
        throwaway: dict[str, Tables] | None,
    ) -> Result:
        """Run a program in PostgreSQL's container, or in the throwaway container that has these databases."""
        if program == "bash":
            return self._restore(arguments, stdin, self.beside if throwaway is None else throwaway)
        if "--username=stackctl_restore" in arguments:
            return self._as_loader(arguments)
        if throwaway is not None:
            if program == "psql":
                refuse_unknown(arguments[-1])
            return Result(0)
        match program:
            case "psql":
                return self.sql(arguments[-1])
            case "pg_dump" | "pg_dumpall":
                if stdout:
                    stdout.write_text(json.dumps(self.tables if program == "pg_dump" else {}))
            case "pg_amcheck":
                pass
            case "pg_restore":
                return Result(0, "; a comment\n215; 0 16385 TABLE DATA public offers owner\n")
            case _:
                raise AssertionError(f"{program} {arguments}")
        return Result(0)

    def sql(self, statement: str) -> Result:  # noqa: PLR0911
        """Answer a statement of the superuser."""
        refuse_unknown(statement)
        if "pg_database_size" in statement:
            return Result(0, f"17|{self.connections}|7000000\n")
        if "rolcanlogin" in statement and statement.startswith("SELECT rolname"):
            return Result(0, "\n".join(self.plain_roles))
        if re.fullmatch(r"SELECT rolname FROM (pg_catalog\.)?pg_roles", statement):
            return Result(0, "\n".join([*self.logins, *self.plain_roles, *OTHER_ROLES]))
        if "json_build_array('role'" in statement:
            return Result(0, "\n".join(json.dumps(row) for row in self.roles))
        if "DROP ROLE" in statement:
            self.logins.discard(statement.rsplit(maxsplit=1)[-1].strip('"'))
        if "pg_shdepend" in statement or "pg_available_extensions" in statement or statement.startswith(UNANSWERED):
            return Result(0)
        if statement == "SHOW server_version":
            return Result(0, "17.11")
        assert "DATABASE" in statement or "FROM pg_database" in statement, statement
        return self._databases(statement)

    def _databases(self, statement: str) -> Result:
        """Create, drop or rename a database, or return its comment."""
        names = re.findall(NAMED, statement)
        match statement.split(maxsplit=1)[0]:
            case "CREATE":
                self.beside[names[0]] = {}
            case "DROP":
                for of_databases in (self.beside, self.comments, self.schemas):
                    of_databases.pop(names[0], None)
            case "COMMENT":
                self.comments[names[0]] = statement.partition("'")[2].rstrip("'")
            case "ALTER" | "BEGIN;":
                if "pg_terminate_backend" in statement:
                    self.sessions -= set(re.findall(NAMED.replace('"', "'"), statement))
                if taken := self.sessions & set(names):
                    return Result(1, stderr=f'ERROR:  database "{taken.pop()}" is being accessed by other users')
                for old, new in zip(names[::2], names[1::2], strict=True):
                    self._rename(old, new)
            case "REVOKE":  # stackctl revokes CONNECT on the database that it restores
                pass
            case "SELECT" if "datname FROM" in statement:
                return Result(0, "\n".join([DATABASE, *self.beside]))
            case "SELECT":
                return Result(0, self.comments.get(statement.rpartition("= ")[2].strip("'"), ""))
            case _:
                raise AssertionError(statement)
        return Result(0)

    def _rename(self, old: str, new: str) -> None:
        tables, revision = self.database(old), self.schemas.pop(old, self.schema)
        self.beside.pop(old, None)
        comment = self.comments.pop(old, "")
        if new == DATABASE:
            self.tables, self.schema = tables, revision
        else:
            self.beside[new], self.schemas[new] = tables, revision
        self.comments[new] = comment

    def _restore(self, arguments: list[str], dump: Path | None, databases: dict[str, Tables]) -> Result:
        """Depending on the arguments of pg_restore, describe a dump or load the dump's tables into a database."""
        assert dump
        try:
            tables = json.loads(dump.read_text())
        except ValueError:
            return Result(1, stderr="pg_restore: error: could not read from input file: end of file")
        names = list(tables)
        if "--list" in arguments:
            rows = "\n".join(
                f"{id_}; 0 1 TABLE DATA {name.replace('.', ' ', 1)} owner" for id_, name in enumerate(names)
            )
            return Result(0, f";\n; a comment\n{rows}\n")
        if "--schema-only" in arguments:
            return Result(0, self.dumped_schema)
        database = next(word for word in arguments if word.startswith("--dbname=")).removeprefix("--dbname=")
        assert "--username=stackctl_restore" in arguments, "no content of a dump may run as the superuser"
        loaded = databases.setdefault(database, {})
        wrong = []
        for name in [names[int(id_)] for id_ in arguments if id_.isdecimal()]:
            if name in self.unloadable and (name, database) not in self.unchecked:
                loaded[name] = 0
                wrong.append(
                    f"pg_restore: error: COPY failed for table {name}: ERROR:  no\nCONTEXT:  COPY line 1: a row"
                )
                if "--exit-on-error" in arguments:
                    break
            else:
                loaded[name] = self.lost.get(name, tables[name])
        loaded |= {name: rows for name, rows in self.lost.items() if name not in names}
        if database in self.beside:
            remembered = json.loads((dump.parent / "state.json").read_text())["revisions"]
            self.schemas[database] = remembered[-1]["revision"] if remembered else None
        return Result(1 if wrong else 0, stderr="\n".join(wrong))

    def _as_loader(self, arguments: list[str]) -> Result:
        """Return the constraints that keep rows out, or drop one of them."""
        statement, database = arguments[-1], arguments[-3].removeprefix("--dbname=")
        if "json_build_array" in statement:
            checked = [name for name, by_a_check in self.unloadable.items() if by_a_check]
            statements = [[f"{verb} {name}" for verb in ("DROP", "ADD", "VALIDATE")] for name in checked]
            return Result(0, "\n".join(map(json.dumps, statements)))
        assert statement.startswith(OF_LOADER), statement
        if statement.startswith("DROP "):
            self.unchecked.add((statement.removeprefix("DROP "), database))
        return Result(0)


@dataclass
class Psql(Conversation):
    """A psql session that passes each query to `moment`, which may make the query fail."""

    tables: Tables
    moment: Callable[[str], None]

    def ask(self, question: str, last: str, timeout: float) -> list[str]:
        self.moment(question)
        names = [tuple(name.split(".")) for name in self.tables]
        match [word for word in question.split() if word != "a;"]:
            case (
                ["SET", "client_min_messages", *_] | ["SET", "lock_timeout", *_] | ["BEGIN", *_] | ["LOCK", "TABLE", *_]
            ):
                return []
            case ["SELECT", "pg_catalog.pg_export_snapshot();", *_]:
                return ["00000003-0000001B-1"]
            case ["SELECT", "pg_catalog.json_build_array(", *_]:
                return [json.dumps([16385 + n, *name, "id", True]) for n, name in enumerate(names)]
            case ["SELECT", "l.relation::pg_catalog.int8", *_]:
                return ["7", str(16385 + len(names) - 1)]
            case ["SAVEPOINT", "COPY", table, *_]:
                return [str(self.tables[table.replace('"', "")])]
            case _:
                raise AssertionError(question)
