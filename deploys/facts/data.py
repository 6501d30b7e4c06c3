"""The state of what the data services stand on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pyinfra.api import FactBase, QuoteString, StringCommand

LINK = "a link"
"""What DirectoryState says of a directory that is elsewhere."""


class DirectoryState(FactBase[str | None]):
    """A directory's "mode uid gid" ("700 999 999"; the uid is the image's), None where there is none."""

    def command(self, path: str) -> StringCommand:
        directory = QuoteString(path)
        whose = StringCommand("test -d", directory, "&& stat -c '%a %u %g'", directory, "|| true")
        return StringCommand("if test -L", directory, f"; then echo {LINK}; else", whose, "; fi")

    def process(self, output: Iterable[str]) -> str | None:
        return "".join(output).strip() or None


UNREADABLE = 0
"""What PostgresMajor says of a PG_VERSION that names no version."""


class PostgresMajor(FactBase[int | None]):
    """The major version that made the database in a directory, None where there is none.

    The file is uid 999's. A link there is not followed, a FIFO not waited for, and no more is read than a version has;
    what is no version is not shown, since it may come from any file of root's.
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
