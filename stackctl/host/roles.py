"""Who has power in PostgreSQL, and which settings somebody left there: for `status`.

Asked as the superuser in the database `postgres`, where the app's roles can leave nothing that would falsify an answer.
A former superuser can: this finds what an honest server answers, and docs/how-to/runbook.md says what to do otherwise.
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
"""Besides the superuser, and the roles that PostgreSQL comes with."""
KIND = "postgres-role:"
"""What the names of findings begin with."""
LONGEST = 80
_POWERFUL = "(" + " OR ".join(f"g.{column}" for column in POWERS) + " OR g.oid < 16384)"
_OF_ROLE = ", ".join(f"CASE WHEN r.{column} THEN '{power}' END" for column, power in POWERS.items())
# What PostgreSQL comes with has an OID below 16384 (access/transam.h), and is a member of its own roles alone.
QUERY = f"""SELECT json_build_array('role', r.rolname, array_to_json(array_remove(ARRAY[{_OF_ROLE}] || ARRAY(
 SELECT 'member of ' || g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
 WHERE m.member = r.oid AND {_POWERFUL} AND r.oid >= 16384 ORDER BY g.rolname), NULL)))
 FROM pg_roles r WHERE r.rolname <> '{SUPERUSER}'
UNION ALL
SELECT json_build_array('setting', coalesce(r.rolname, d.datname, 'every role'), array_to_json(s.setconfig))
 FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase"""


class Found(NamedTuple):
    undeclared: list[Finding]
    """Roles with a power that nobody declared."""
    settings: list[str]
    """Of databases and roles, but for the roles that logins act as: our sessions overrule them, the app's obey them."""


def look(server: Server, database: str) -> Found:
    """Raises FailedError."""
    rows = [json.loads(line) for line in server.query(ADMIN, QUERY).split("\n") if line]
    undeclared = [
        Finding(f"{KIND}{_shown(name)}", f"PostgreSQL's role has {_listed(more)} (docs/how-to/runbook.md)", "hand")
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
    return f"powers that nobody declared: {', '.join(sorted(map(_shown, powers)))}"


def _shown(name: str) -> str:
    """As it can be printed: a role's name may be anything."""
    return printable(name, "")[:LONGEST]
