"""The state of what the data services stand on."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra.api import FactBase, QuoteString, StringCommand


class DirectoryState(FactBase[str | None]):
    """A directory's "mode uid gid" ("700 999 999"; the uid is the image's), None where there is none."""

    def command(self, path: str) -> StringCommand:
        directory = QuoteString(path)
        return StringCommand("test -d", directory, "&& stat -c '%a %u %g'", directory, "|| true")

    def process(self, output: Iterable[str]) -> str | None:
        return "".join(output).strip() or None


class RolePassword(FactBase[bool]):
    """Whether PostgreSQL admits the role with the password in its container's secret file.

    Asked over the container's own address, since the image trusts loopback. True where no such container runs: there is
    nothing to change then.
    """

    @staticmethod
    def default() -> bool:
        return True

    def requires_command(self, container: str, role: str, database: str) -> str:  # noqa: ARG002
        return "docker"

    def command(self, container: str, role: str, database: str) -> StringCommand:
        ask = (
            'PGPASSWORD="$(cat /run/secrets/password)" '
            f'psql -h "$(hostname -i)" -U {role} -d {database} -c "" 2>&1 >/dev/null'
        )
        return StringCommand("docker exec", QuoteString(container), "sh -c", QuoteString(ask), "2>&1 || true")

    def process(self, output: Iterable[str]) -> bool:
        return "password authentication failed" not in "\n".join(output)
