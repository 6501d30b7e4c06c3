"""What the data services stand on: their directories, and PostgreSQL's roles."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import PurePosixPath

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.files import File
from stackctl.postgres import ADMIN, OF_SUPERUSER, PRIVILEGES, SUPERUSER, session

from deploys.facts.data import LINK, DirectoryState, RedisPasswords, RolesAsDeclared
from deploys.operations import Commands
from deploys.operations.files import place


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
    elif there == LINK:
        # Root gives nothing away through one, and stackctl follows none below data_root (openat.py).
        yield StringCommand(
            "echo", QuoteString(f"{path} is a symbolic link: mount the volume there instead"), ">&2; false"
        )
    elif there:
        yield StringCommand(f"chown {uid}:{uid}", target, "&& chmod 700", target)
    elif host.get_fact(File, path=installed):
        cause = f"{path} is gone though the data services ran before: mount the volume of {PurePosixPath(path).parent}"
        yield StringCommand("echo", QuoteString(f"{cause}, then converge again"), ">&2; false")
    else:
        yield StringCommand(f"install -d -m 700 -o {uid} -g {uid}", target)


@operation()
def roles(container: str, *, database: str, owner: str, login: str, password: str) -> Commands:
    """`login` is admitted with the password and acts as `owner`, who can't log in and may make all it needs.

    The database is the superuser's, since its owner can leave settings for all who come in (ALTER DATABASE … SET).
    The superuser `postgres` is left without a password: it is for the container's own socket.
    """
    if host.get_fact(RolesAsDeclared, container=container, owner=owner, login=login, database=database):
        host.noop(f"{login} is admitted, and acts as {owner}")
        return
    # standard_conforming_strings is on, so a backslash stands for itself. Neither the server's log nor psql shows the
    # statement, be it one that fails.
    quoted = password.replace("'", "''")
    plain = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
    statements = [
        "\\set VERBOSITY terse",
        "SET log_statement = 'none';",
        "SET log_min_error_statement = 'panic';",
        "BEGIN;",
        *(_created(role) for role in (owner, login)),
        f'ALTER ROLE "{owner}" NOLOGIN {plain};',
        f"ALTER ROLE \"{login}\" LOGIN {plain} PASSWORD '{quoted}';",
        f'GRANT "{owner}" TO "{login}";',
        # So that whatever it makes is the owner's, and the next login role's as well. What it set for itself goes.
        f'ALTER ROLE "{login}" RESET ALL;',
        f'ALTER ROLE "{login}" IN DATABASE "{database}" RESET ALL;',
        f'ALTER ROLE "{login}" SET role = "{owner}";',
        f'ALTER DATABASE "{database}" OWNER TO {SUPERUSER};',
        f'GRANT {", ".join(PRIVILEGES)} ON DATABASE "{database}" TO "{owner}";',
        f"ALTER ROLE {SUPERUSER} PASSWORD NULL;",
        "COMMIT;",
        # From here on in a database where the app is at home.
        f'\\connect "{database}"',
        # An app may have done without it.
        f"SELECT 'ALTER SCHEMA public OWNER TO \"{owner}\"' FROM pg_namespace WHERE nspname = 'public' \\gexec",  # noqa: S608
    ]
    # A role of the app's that holds a lock for ever must not hold up the converge.
    settings = session(OF_SUPERUSER | {"lock_timeout": "10s"})
    yield StringCommand(
        *("docker exec -i --env", QuoteString(f"PGOPTIONS={settings}"), QuoteString(container)),
        *("psql --quiet --no-psqlrc -v ON_ERROR_STOP=1", f"--username={SUPERUSER} --dbname={ADMIN}"),
        _stdin=statements,
    )


@operation()
def redis_admits(container: str, *, password: str, dest: str, directives: str, alone: bool = False) -> Commands:
    """Redis takes the password, now and when it starts anew: beside those that it takes already, or alone.

    Connections that came in by another one stay. The live release has one of the others until the next one serves; in
    between a converge may stop, and Redis start anew.

    + dest: what it starts with, on standard input
    + directives: what else that says
    """
    admitted = host.get_fact(RedisPasswords, container=container)
    wanted = sha256(password.encode()).hexdigest()
    others = admitted - {wanted}
    if alone and not others and not state.is_executing:
        host.noop("Redis will admit it alone")
        return
    kept = [wanted] if alone else [wanted, *sorted(others)]
    yield from place._inner(dest=dest, content=_starts_with(directives, kept), mode="600", secret=True)  # noqa: SLF001
    # One that isn't there yet starts with the declared one; by the time that it is to admit no other, it has to answer.
    to_come = not admitted and not alone
    if to_come or admitted == {wanted} or (wanted in admitted and not alone):
        return
    # Its answer counts: redis-cli itself ends with 0 whatever Redis says.
    ask = 'REDISCLI_AUTH="$(cat /run/secrets/password)" redis-cli | grep -qx OK'
    yield StringCommand(
        *("docker exec -i", QuoteString(container), "sh -c", QuoteString(ask)),
        _stdin=f"ACL SETUSER default {'resetpass ' if alone else ''}#{wanted}",
    )


def _starts_with(directives: str, hashes: Iterable[str]) -> bytes:
    """The passwords by their hashes, so that no byte of them needs quoting."""
    return f"{directives}user default on {' '.join(f'#{one}' for one in hashes)} ~* &* +@all\n".encode()


def _created(role: str) -> str:
    missing = f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
    return f"SELECT 'CREATE ROLE \"{role}\"' WHERE {missing} \\gexec"
