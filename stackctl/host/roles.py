"""Finds the roles with undeclared powers, and the settings of roles and databases, in PostgreSQL.

`status` reports both.

The query runs as the superuser in the database `postgres`, where the app's roles cannot create anything that would
falsify the answer. However, a role that was once superuser could falsify the answer, so the answer is only as reliable
as the server. docs/how-to/runbook.md says what to do if the server itself is in doubt.
"""
# ruff: noqa: S608

import json
from typing import NamedTuple

from stackctl.core.printable import printable
from stackctl.host.findings import Finding
from stackctl.services.postgres import ADMIN, READER, SUPERUSER, Server

POWERS = {
    "rolsuper": "superuser",
    "rolcreaterole": "createrole",
    "rolcreatedb": "createdb",
    "rolreplication": "replication",
    "rolbypassrls": "bypassrls",
}
DECLARED = {READER: {"bypassrls", "member of pg_read_all_data"}}
"""The declared powers, besides those of the superuser and of PostgreSQL's predefined roles."""
KIND = "postgres-role:"
"""The prefix of the names of findings."""
LONGEST = 80
_POWERFUL = "(" + " OR ".join(f"g.{column}" for column in POWERS) + " OR g.oid < 16384)"
_OF_ROLE = ", ".join(f"CASE WHEN r.{column} THEN '{power}' END" for column, power in POWERS.items())
# Predefined roles have an OID below 16384 (access/transam.h), and are members of predefined roles only.
QUERY = f"""SELECT json_build_array('role', r.rolname, array_to_json(array_remove(ARRAY[{_OF_ROLE}] || ARRAY(
 SELECT 'member of ' || g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
 WHERE m.member = r.oid AND {_POWERFUL} AND r.oid >= 16384 ORDER BY g.rolname), NULL)))
 FROM pg_roles r WHERE r.rolname <> '{SUPERUSER}'
UNION ALL
SELECT json_build_array('setting', coalesce(r.rolname, d.datname, 'every role'), array_to_json(s.setconfig))
 FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase"""


class Found(NamedTuple):
    """PostgreSQL's answer to the query."""

    undeclared: list[Finding]
    """Roles with undeclared powers."""
    settings: list[str]
    """Settings of databases and roles, which the app's sessions obey. A login's setting `role` is not among them."""


def look(server: Server, database: str) -> Found:
    """Ask PostgreSQL. Raises FailedError."""
    rows = [json.loads(line) for line in server.query(ADMIN, QUERY).split("\n") if line]
    undeclared = [
        Finding(f"{KIND}{_shown(name)}", f"this PostgreSQL role has {_listed(more)} (docs/how-to/runbook.md)", "hand")
        for kind, name, powers in rows
        if kind == "role" and (more := set(powers) - DECLARED.get(name, set()))
    ]
    settings = [
        f"{_shown(name)}: {_shown(one)}"
        for kind, name, those in rows
        if kind == "setting"
        for one in those
        if not one.startswith("role=") or name == database
    ]
    return Found(undeclared, sorted(settings))


def _listed(powers: set[str]) -> str:
    return f"undeclared powers: {', '.join(sorted(map(_shown, powers)))}"


def _shown(name: str) -> str:
    """Return the name in printable form, because a role may have any name."""
    return printable(name, "")[:LONGEST]
