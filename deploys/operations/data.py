"""What the data services stand on: their directories, and PostgreSQL's password."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta
from pyinfra.facts.files import File

from deploys.facts.data import DirectoryState, RolePassword
from deploys.operations import Commands


@operation()
def data_directory(path: str, *, uid: int, installed: str) -> Commands:
    """A data directory, made once, before the services first ran; never again.

    + installed: the file whose presence says that they did. A directory that is gone then is a volume that isn't
      mounted, and a new one in its place would start an empty database (docs/architecture.md, decision 13).
    """
    there = host.get_fact(DirectoryState, path=path)
    target = QuoteString(path)
    if there == f"700 {uid} {uid}":
        host.noop(f"{path} is there")
    elif there:
        yield StringCommand(f"chown {uid}:{uid}", target, "&& chmod 700", target)
    elif host.get_fact(File, path=installed):
        cause = f"{path} is gone though the data services ran before: mount the volume of {PurePosixPath(path).parent}"
        yield StringCommand("echo", QuoteString(f"{cause}, then converge again"), ">&2; false")
    else:
        yield StringCommand(f"install -d -m 700 -o {uid} -g {uid}", target)


@operation()
def role_password(project: str, *, role: str, database: str, password: str, after: Sequence[OperationMeta]) -> Commands:
    """Gives `role` the declared password when PostgreSQL refuses it: initdb takes the first one only.

    + after: what places the password, so that a plan shows the change before the droplet has it
    """
    container = f"{project}-postgres-1"
    to_come = not state.is_executing and any(change.will_change for change in after)
    if host.get_fact(RolePassword, container=container, role=role, database=database) and not to_come:
        host.noop(f"{role} has the declared password")
        return
    # standard_conforming_strings is on by default, so a backslash stands for itself. Neither the server's log nor psql
    # shows the statement, be it one that fails.
    quoted = password.replace("'", "''")
    statements = [
        "\\set VERBOSITY terse",
        "SET log_statement = 'none';",
        "SET log_min_error_statement = 'panic';",
        f"ALTER ROLE \"{role}\" PASSWORD '{quoted}';",
    ]
    yield StringCommand(
        *("docker exec -i", QuoteString(container)),
        *("psql --quiet --no-psqlrc -v ON_ERROR_STOP=1", f"--username={role} --dbname={database}"),
        _stdin=statements,
    )
