"""The state of what the data services stand on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase, QuoteString, StringCommand


class DirectoryState(FactBase[str | None]):
    """A directory's "mode uid gid" ("700 999 999"; the uid is the image's), None where there is none."""

    def command(self, path: str) -> StringCommand:
        directory = QuoteString(path)
        return StringCommand("test -d", directory, "&& stat -c '%a %u %g'", directory, "|| true")

    def process(self, output: Iterable[str]) -> str | None:
        return "".join(output).strip() or None


class PostgresMajor(FactBase[int | None]):
    """The major version that made the database in a directory, None where there is none."""

    def command(self, path: str) -> StringCommand:
        return StringCommand("cat", QuoteString(f"{path}/PG_VERSION"), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> int | None:
        version = "".join(output).strip()
        return int(version) if version else None


class RolesAsDeclared(FactBase[bool]):
    """Whether the database is its owner's, and the login role is admitted with the password in the secret file.

    Asked over the container's own address, since the image trusts loopback; the rest as the superuser, over the socket.
    """

    @staticmethod
    def default() -> bool:
        return False

    def requires_command(self, container: str, owner: str, login: str, database: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, container: str, owner: str, login: str, database: str) -> StringCommand:
        psql = f"psql --no-psqlrc -tA -d {database}"
        acts_as_owner = f"SELECT current_user = '{owner}'"
        ask = "; ".join(
            [
                f'PGPASSWORD="$(cat /run/secrets/password)" {psql} -h "$(hostname -i)" -U {login} -c "{acts_as_owner}"',
                f'{psql} -U postgres -c "{_ownership(owner, login)}"',
            ]
        )
        return StringCommand("docker exec", QuoteString(container), "sh -c", QuoteString(ask), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> bool:
        return list(output) == ["t", "t"]


class RedisPasswords(FactBase[frozenset[str]]):
    """SHA-256 of each password that Redis admits; none when it isn't there, or not with the password in its file."""

    default = frozenset

    def requires_command(self, container: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, container: str) -> StringCommand:
        ask = 'REDISCLI_AUTH="$(cat /run/secrets/password)" redis-cli ACL GETUSER default'
        return StringCommand("docker exec", QuoteString(container), "sh -c", QuoteString(ask), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> frozenset[str]:
        return frozenset(line for line in output if re.fullmatch("[0-9a-f]{64}", line))


def _ownership(owner: str, login: str) -> str:
    """What operations.data.roles sees to, but for what the login role itself shows."""
    powers = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    return " ".join(
        [
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = current_database()",
            f"AND datdba = '{owner}'::regrole)",
            f"AND EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public' AND nspowner = '{owner}'::regrole)",
            f"AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname IN ('{owner}', '{login}') AND ({powers}))",
            f"AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname = '{owner}' AND rolcanlogin)",
            "AND NOT EXISTS (SELECT FROM pg_authid WHERE rolname = 'postgres' AND rolpassword IS NOT NULL)",
        ]
    )
