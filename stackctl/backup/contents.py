"""Decides which entries of a dump `pg_restore` loads, which entries a superuser creates, and which are left out."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stackctl.backup.roles import IDENTIFIER, OWNED, unquoted
from stackctl.services.postgres import READER

ENTRY = re.compile(r"(\d+); \d+ \d+ ([A-Z]+(?: [A-Z]+)*) (\S+) (.*)")
"""A line of `pg_restore --list`. If a name makes the line ambiguous, the entry counts as the owner's and is loaded."""
EXTENSION = re.compile(rf"CREATE EXTENSION IF NOT EXISTS ({IDENTIFIER}) WITH SCHEMA ({IDENTIFIER});")
OWNED_BY_NAME = re.compile(
    rf"ALTER (TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|SCHEMA|TYPE|DOMAIN) "
    rf"((?:{IDENTIFIER})(?:\.(?:{IDENTIFIER}))?) OWNER TO ({IDENTIFIER});"
)
OF_DATABASE = re.compile(
    rf"(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE (?:{IDENTIFIER}) (?:TO|FROM) ({IDENTIFIER}|PUBLIC)(?: WITH GRANT OPTION)?;"
)
"""Only one part of the pattern has unlimited length, because the lines of a hostile dump may be very long."""
FOR_ALL_TABLES = re.compile(rf"CREATE PUBLICATION ({IDENTIFIER}) FOR ALL TABLES")

SUPERUSERS_ALONE = (
    *("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING", "FOREIGN TABLE", "ACCESS METHOD"),
    *("PROCEDURAL LANGUAGE", "OPERATOR CLASS", "OPERATOR FAMILY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"),
    *("SUBSCRIPTION TABLE", "SUBSCRIPTION", "SECURITY LABEL", "PUBLICATION TABLES IN SCHEMA"),
)
"""Kinds in a dump's table of contents that only a superuser may create."""
OF_THE_DATABASE = ("DATABASE", "DATABASE PROPERTIES")
"""Kinds that are not loaded. `Load.as_live` copies them from the live database instead."""
ABOUT = ("ACL", "COMMENT", "SECURITY LABEL")
OF_OTHERS = ("DATABASE ", "EXTENSION ", "EVENT TRIGGER ", "FOREIGN SERVER ", "SERVER ", "FOREIGN DATA WRAPPER ")
"""An entry whose kind is in ABOUT is skipped if its target is of one of these kinds. Such a target is not loaded, or
brings its own privileges and comments."""
LIVE_ONES = "the database itself gets the privileges and settings of the live database"
LARGE_OBJECTS = ("BLOB", "BLOB METADATA")


class Entry(NamedTuple):
    """An entry of a dump's table of contents."""

    id: str
    kind: str
    schema: str
    rest: str
    """The name and the owner of the object."""

    @property
    def name(self) -> str:
        return self.rest.rpartition(" ")[0]

    @property
    def owner(self) -> str:
        return self.rest.rpartition(" ")[2]


@dataclass(frozen=True)
class Contents:
    """The parts of a dump to load, and the messages for the operator about all other parts."""

    entries: tuple[str, ...]
    """The IDs of the entries to load, in the order of the table of contents."""
    extensions: tuple[tuple[str, str], ...]
    """The extensions that only a superuser may create, each with its schema."""
    roles: tuple[str, ...]
    """The roles, besides the owner, that the dump's privileges, policies or owners name."""
    owners: tuple[tuple[str, str, str], ...]
    """Each object that belongs to one of the roles: its kind and name as the dump writes them, and the role."""
    told: tuple[str, ...]
    """Each line names something that the restored database lacks, or that differs there."""


def entries(listed: str) -> list[Entry]:
    """Parse the output of `pg_restore --list`."""
    return [Entry(*match.groups()) for line in listed.split("\n") if (match := ENTRY.fullmatch(line))]


def extensions(schema: Iterable[str], untrusted: Container[str]) -> tuple[tuple[str, str], ...]:
    """Return the untrusted extensions that the SQL of the schema creates, each with the schema of the extension.

    A line in the body of a function may look like a CREATE EXTENSION statement. Functions come later in a dump, so only
    the first such line for each extension counts.
    """
    named = dict[str, str]()
    for line in schema:
        if match := EXTENSION.fullmatch(line):
            named.setdefault(unquoted(match[1]), unquoted(match[2]))
    return tuple((name, where) for name, where in named.items() if name in untrusted)


def owners(found: Iterable[Entry], schema: Iterable[str], roles: Container[str]) -> tuple[tuple[str, str, str], ...]:
    """Return the kind, the name and the role of each object that belongs to one of the roles."""
    named = tuple(
        (match[1], match[2], role)
        for line in schema
        if (match := OWNED_BY_NAME.fullmatch(line)) and (role := unquoted(match[3])) in roles
    )
    # The name of a large object is its number. PostgreSQL 17 may list several large objects in one entry. Large objects
    # in such an entry go to the database's owner.
    large = ((one.name, one.owner) for one in found if one.kind in LARGE_OBJECTS and one.name.isdecimal())
    return named + tuple(("LARGE OBJECT", name, role) for name, role in large if role in roles)


def chosen(
    found: Sequence[Entry], ours: Sequence[tuple[str, str]], schema: Iterable[str], owner: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return the IDs of the entries to load, and a line for each entry that is left out."""
    publications = {unquoted(match[1]) for line in schema if (match := FOR_ALL_TABLES.match(line))}
    extensions, schemas = {name for name, _ in ours}, {where for _, where in ours} - {"public"}
    objects = {(one.schema, one.rest) for one in found}
    foreign = {(one.schema, one.name) for one in found if one.kind == "FOREIGN TABLE"}
    ids, left_out = list[str](), list[str]()
    for one in found:
        made = (one.kind == "EXTENSION" and one.name in extensions) or (one.kind == "SCHEMA" and one.name in schemas)
        if made or one.kind in OF_THE_DATABASE or (one.kind in ABOUT and one.rest.startswith(OF_OTHERS)):
            continue
        if one.kind in SUPERUSERS_ALONE or (one.kind == "PUBLICATION" and one.name in publications):
            left_out.append(f"{one.kind.lower()} {one.name} is left out, because only a superuser may create it")
        elif any(one.schema == schema_ and _is_about(one, table) for schema_, table in foreign):
            continue
        elif one.kind == "DEFAULT ACL" and one.owner != owner:
            left_out.append(f"default privileges of {one.owner} are left out")
        elif one.kind == "ACL" and one.owner != owner and not _is_known(one, objects):
            left_out.append(f"privileges on {one.name} are left out, because an extension has created it")
        else:
            ids.append(one.id)
    return tuple(ids), left_out


def is_set_up(found: Iterable[Entry], schema: Iterable[str], owner: str) -> bool:
    """Return whether the database has settings of its own, or privileges for roles other than the owner and READER."""
    ours = {owner, READER}
    granted = [line for line in schema if (match := OF_DATABASE.fullmatch(line)) and unquoted(match[1]) not in ours]
    return bool(granted) or any(one.kind == "DATABASE PROPERTIES" for one in found)


def _is_about(one: Entry, table: str) -> bool:
    return bool(re.match(rf'((FOREIGN )?TABLE |COLUMN )?"?{re.escape(table)}"?[ .]', one.rest))


def _is_known(one: Entry, objects: Container[tuple[str, str]]) -> bool:
    """Return whether the privileges in this entry belong to an object that the dump creates."""
    kind, _, target = one.rest.partition(" ")
    return kind in {"COLUMN", "LARGE"} or (one.schema, target.replace('"', "")) in objects


def reassigned(schema: Iterable[str], kept: Iterable[tuple[str, str, str]], owner: str) -> list[str]:
    """Return a line for each role whose objects will partly or all belong to the owner role."""
    every = Counter(unquoted(found[1]) for line in schema if (found := OWNED.fullmatch(line)))
    for *_, role in kept:
        every[role] -= 1
    every[owner] = every["pg_database_owner"] = 0
    return [f"objects of {role} ({count}) will belong to {owner}" for role, count in every.items() if count > 0]
