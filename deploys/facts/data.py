"""Facts about the data services: directories, PostgreSQL's roles and Redis's users."""
# ruff: noqa: S608 - the names in statements are checked by deploys/config/values.py

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand

from stackctl.services.postgres import ADMIN, OF_SUPERUSER, PRIVILEGES, SESSION, SUPERUSER, session
from stackctl.services.redis import ADMINISTRATOR

LINK = "a link"
"""DirectoryState's value for a symbolic link."""


class DirectoryState(FactBase[str | None]):
    """A directory's mode, uid and gid, such as "700 999 999".

    LINK for a symbolic link. None for anything else.

    The uid and the gid are numbers, because the droplet has no names for them.
    """

    def command(self, path: str) -> StringCommand:
        directory = QuoteString(path)
        whose = StringCommand("test -d", directory, "&& stat -c '%a %u %g'", directory, "|| true")
        return StringCommand("if test -L", directory, f"; then echo {LINK}; else", whose, "; fi")

    def process(self, output: Iterable[str]) -> str | None:
        return "".join(output).strip() or None


UNREADABLE = 0
"""The value of PostgresMajor if PG_VERSION names no version."""


class PostgresMajor(FactBase[int | None]):
    """The major version of PostgreSQL that created a data directory. None if the directory holds no database.

    PG_VERSION belongs to uid 999, so an intruder in the container may have replaced the file. Therefore the fact
    PostgresMajor follows no link, waits for no FIFO, and reads only a few bytes. The fact returns nothing but a
    version, because the file could contain anything that root can read.
    """

    def command(self, path: str) -> StringCommand:
        file, read = QuoteString(f"{path}/PG_VERSION"), QuoteString(f"if={path}/PG_VERSION")
        options = "bs=8 count=1 iflag=nofollow,nonblock status=none 2>/dev/null"
        return StringCommand(
            "if test -e", file, "|| test -L", file, "; then echo there; dd", read, options, "; fi; true"
        )

    def process(self, output: Iterable[str]) -> int | None:
        said = list(output)
        if not said:
            return None
        version = re.fullmatch("there ([0-9]{1,3})", " ".join(said).strip(), re.ASCII)
        return int(version[1]) if version else UNREADABLE


class RolesAsDeclared(FactBase[bool]):
    """Whether the roles and the database already have the state that `postgres_roles` (operations/data.py) creates.

    The login role connects to the container's own address, because the image asks for no password on the loopback
    address. The superuser connects to the database `postgres` over the socket. The sessions of both roles set their own
    settings, because the app's roles may have stored other settings.
    """

    @staticmethod
    def default() -> bool:
        return False

    def requires_command(self, container: str, owner: str, login: str, database: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, container: str, owner: str, login: str, database: str) -> StringCommand:
        # Leave out the setting `role`, because the query must find out which role the server sets by itself.
        as_it_acts = session({name: value for name, value in SESSION.items() if name != "role"})
        login_settings = f'PGPASSWORD="$(cat /run/secrets/password)" PGOPTIONS={shlex.quote(as_it_acts)}'
        psql = "psql --no-psqlrc -tA"
        ask = "; ".join(
            [
                f'{login_settings} {psql} -d {database} -h "$(hostname -i)" -U {login} -c "{_as_login(owner)}"',
                f'{psql} -d {ADMIN} -U {SUPERUSER} -c "{_as_superuser(owner, login, database)}"',
            ]
        )
        settings = QuoteString(f"PGOPTIONS={session(OF_SUPERUSER)}")
        shell = StringCommand("docker exec --env", settings, QuoteString(container), "sh -c", QuoteString(ask))
        return StringCommand(shell, "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> bool:
        return list(output) == ["t", "t"]


class RedisUser(NamedTuple):
    """Redis's user `default`, which the app uses."""

    passwords: frozenset[str] = frozenset()
    """SHA-256 of each accepted password; empty if Redis does not run or accepts neither user."""
    rules: str = ""
    """Permitted commands, as Redis prints them."""
    by_administrator: bool = False
    """Whether the administrator could log in and gave this answer."""


class RedisUsers(FactBase[RedisUser]):
    """The app's user in Redis.

    The fact RedisUsers logs in to Redis as the administrator, or as the app's user if there is no administrator yet.
    Until November 2026, the app's user was the only user of Redis and had all permissions.
    """

    default = RedisUser

    def requires_command(self, container: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, container: str) -> StringCommand:
        get = "ACL GETUSER default"
        ask = f"{redis_cli('administrator')} -e {get} && echo {_BY_ADMINISTRATOR} || {redis_cli('password')} {get}"
        return StringCommand("docker exec", QuoteString(container), "sh -c", QuoteString(ask), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> RedisUser:
        lines = list(output)
        passwords = frozenset(line for line in lines if re.fullmatch("[0-9a-f]{64}", line))
        rules = [after for before, after in pairwise(lines) if before == "commands"]
        return RedisUser(passwords, rules[0] if rules else "", by_administrator=_BY_ADMINISTRATOR in lines)


def redis_cli(who: Literal["administrator", "password"]) -> str:
    """Return the command line of redis-cli for Redis's container.

    The user's password is in the file /run/secrets/`who`.
    """
    user = ADMINISTRATOR if who == "administrator" else "default"
    return f'REDISCLI_AUTH="$(cat /run/secrets/{who})" redis-cli --user {user}'


_BY_ADMINISTRATOR = "told by the administrator"


def _as_login(owner: str) -> str:
    """Return the query for the login role.

    The schema public may be missing, because an app may have dropped the schema.
    """
    public = f"SELECT FROM pg_namespace WHERE nspname = 'public' AND nspowner <> '{owner}'::regrole"
    return f"SELECT current_user = '{owner}' AND NOT EXISTS ({public})"


def _as_superuser(owner: str, login: str, database: str) -> str:
    """Return the query for the superuser, which checks all properties that the login role can't see."""
    powers = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    granted = " AND ".join(f"has_database_privilege('{owner}', '{database}', '{one}')" for one in PRIVILEGES)
    return " ".join(
        [
            f"SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{database}'",
            f"AND datdba = '{SUPERUSER}'::regrole AND {granted})",
            f"AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname IN ('{owner}', '{login}') AND ({powers}))",
            f"AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname = '{owner}' AND rolcanlogin)",
            f"AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname = '{SUPERUSER}' AND rolpassword IS NOT NULL)",
        ]
    )
