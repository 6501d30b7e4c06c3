"""Manages the roles that a restored dump needs: the loader role, and the roles that the dump names."""
# ruff: noqa: S608

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.services.postgres import ADMIN, LONG_TIMEOUT, READER, Server

LOADER = "stackctl_restore"
"""The loader: a login role for one load. It has no password, so it can log in only over the container's own socket."""
MOST_BYTES = 64 << 20
"""A dump's table of contents and its schema may each have at most this many bytes."""
MOST_ROLES = 500
NAME_BYTES = 63
AT_ONCE = 200
"""One command line carries at most this many SQL statements."""
IDENTIFIER = r'[a-z_][a-z0-9_$]*|"(?:[^"\x00-\x1f\x7f]|"")+"'
ROLE_NAME = re.compile(r"(?!pg_)[\w .@+-]{1,63}")
CREATED_ROLE = re.compile(rf"CREATE ROLE ({IDENTIFIER});")
OWNED = re.compile(rf"ALTER (?!DATABASE|EVENT|SERVER|FOREIGN|PUBLICATION|SUBSCRIPTION).+ OWNER TO ({IDENTIFIER});")
NAMES_ROLES = ("GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES ", "CREATE POLICY ")

NO_POWERS = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
# A plain role cannot log in. The only privileges of a plain role are granted privileges, and the privileges on its own
# objects.
PLAIN = """NOT (rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid)"""
# Like every role, the loader may change its own settings. So each load resets the loader's settings.
LOGIN = """DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{loader}') THEN
 CREATE ROLE {loader}; END IF; END $$;
ALTER ROLE {loader} LOGIN {powers} INHERIT CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL '-infinity';
ALTER ROLE {loader} RESET ALL; GRANT "{owner}" TO {loader}"""


def needed(roles: Path, schema: Sequence[str], owner: str) -> tuple[str, ...]:
    """Return the roles that globals.sql creates and that the schema names in privileges, policies or owners."""
    naming = (line for line in schema if line.startswith(NAMES_ROLES) or OWNED.fullmatch(line))
    used = {name for line in naming for name in re.findall(IDENTIFIER, line)}
    with openat.directory(roles.parent) as there:
        text = there.read(roles.name, MOST_BYTES).decode(errors="replace")
    spelled = [found[1] for line in text.split("\n") if (found := CREATED_ROLE.fullmatch(line))]
    names = [
        name
        for one in spelled
        if one in used and ROLE_NAME.fullmatch(name := unquoted(one)) and len(name.encode()) <= NAME_BYTES
    ]
    if len(names) > MOST_ROLES:
        raise FailedError(f"{roles.name} names more than {MOST_ROLES} roles")
    return tuple(name for name in names if name not in {owner, LOADER, READER, "postgres", "public"})


def existing(server: Server) -> set[str]:
    return set(server.query(ADMIN, "SELECT rolname FROM pg_catalog.pg_roles").splitlines())


def plain(server: Server) -> set[str]:
    """Return the roles that cannot log in and have no special attribute or membership."""
    return set(server.query(ADMIN, f"SELECT rolname FROM pg_catalog.pg_roles r WHERE {PLAIN}").splitlines())


def create(server: Server, names: Iterable[str]) -> None:
    """Create the missing roles, without login or privileges. Roles that already exist stay unchanged."""
    there = existing(server)
    run(server, ADMIN, [f"CREATE ROLE {quoted(one)} NOLOGIN {NO_POWERS}" for one in names if one not in there])


def create_loader(server: Server, owner: str) -> None:
    """Create or reset the loader role, and make the loader a member of the owner's role."""
    server.query(ADMIN, LOGIN.format(owner=owner, loader=LOADER, powers=NO_POWERS))


def end_loader(server: Server) -> None:
    """End the sessions of the loader, and drop the loader if no object depends on the loader."""
    ended = f"SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{LOADER}'"
    if LOADER in existing(server):
        server.query(ADMIN, f"ALTER ROLE {LOADER} NOLOGIN; {ended}")
        with suppress(FailedError):  # the DROP fails while the loader has privileges on a database
            server.query(ADMIN, f"DROP ROLE {LOADER}")


def run(server: Server, database: str, statements: Sequence[str]) -> None:
    """Run the statements as superuser, at most AT_ONCE in one call of psql."""
    for first in range(0, len(statements), AT_ONCE):
        server.query(database, "; ".join(statements[first : first + AT_ONCE]), LONG_TIMEOUT)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unquoted(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier
