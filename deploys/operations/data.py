"""What the data services stand on: their directories, and PostgreSQL's roles."""

from __future__ import annotations

from hashlib import sha256
from pathlib import PurePosixPath
from typing import Literal

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.files import File, Sha256File

from deploys.facts.data import LINK, DirectoryState, RedisUsers, RolesAsDeclared, redis_cli
from deploys.facts.files import FileState
from deploys.operations import Commands
from deploys.operations.files import atomic_file
from stackctl.services.postgres import ADMIN, OF_SUPERUSER, PRIVILEGES, SUPERUSER, session
from stackctl.services.redis import ADMINISTRATOR

RULES = "+@all -@dangerous -function|restore +client|list +flushall +flushdb +info +keys +sort +sort_ro"
"""What the app's user may do, by Redis's categories.

@dangerous has all that is an administrator's (@admin is part of it): CONFIG, DEBUG, MODULE, REPLICAOF, ACL, SHUTDOWN,
SAVE, MONITOR, CLIENT KILL, FAILOVER, and RESTORE, which takes apart whatever bytes it is given. Given back is what
libraries and frameworks ask for and what shows or changes no more than the keys, which are the app's own anyway. EVAL
stays (it is not @dangerous): locks, queues and rate limits are written in it.
"""
APP = f"~* &* {RULES}"


@operation()
def data_directory(path: str, *, uid: int, installed: str) -> Commands:
    """A data directory, made once, before the services first ran; never again.

    + installed: the file whose presence says that they did. A directory that is gone then is a volume that isn't
      mounted, and a new one in its place would start an empty database (docs/adr/0012-data-directories.md).
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
def postgres_roles(container: str, *, database: str, owner: str, login: str, password: str) -> Commands:
    """`login` is admitted with the password and acts as `owner`, who can't log in and may make all it needs.

    The database is the superuser's, since its owner can leave settings for all who come in (ALTER DATABASE … SET).
    The superuser `postgres` is left without a password: it is for the container's own socket.
    """
    if host.get_fact(RolesAsDeclared, container=container, owner=owner, login=login, database=database):
        host.noop(f"{login} is admitted, and acts as {owner}")
        return
    # A role of the app's that holds a lock for ever must not hold up the converge.
    settings = session(OF_SUPERUSER | {"lock_timeout": "10s"})
    yield StringCommand(
        *("docker exec -i --env", QuoteString(f"PGOPTIONS={settings}"), QuoteString(container)),
        *("psql --quiet --no-psqlrc -v ON_ERROR_STOP=1", f"--username={SUPERUSER} --dbname={ADMIN}"),
        _stdin=_statements(database, owner, login, password),
    )


def _statements(database: str, owner: str, login: str, password: str) -> list[str]:
    """psql's input: it makes what is missing, and sets all that can be otherwise."""
    # standard_conforming_strings is on, so a backslash stands for itself. Neither the server's log nor psql shows the
    # statement, even when it fails.
    quoted = password.replace("'", "''")
    plain = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
    return [
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


@operation()
def generated_secret(dest: str) -> Commands:
    """A secret of the droplet's own: made there once, and known to nobody."""
    placed = host.get_fact(FileState, path=dest)
    if placed and (placed["mode"], placed["owner"], placed["group"]) == ("600", "root", "root"):
        host.noop(f"{dest} is there")
        return
    target, fresh = QuoteString(dest), QuoteString(f"{dest}.new")
    # 256 bits, in hexadecimal: no byte of them needs quoting. No line end, so that the file's hash is the secret's.
    made = StringCommand("umask 077; head -c 32 /dev/urandom | sha256sum | head -c 64 >", fresh, "&& sync", fresh)
    yield StringCommand("test -s", target, "|| {", made, "&& mv -fT", fresh, target, "; }")
    yield StringCommand("chown root:root", target, "&& chmod 600", target)


@operation()
def redis_password(  # noqa: PLR0913 - two users, and what it starts with
    container: str, *, password: str, administrator: str, dest: str, directives: str, exclusive: bool = False
) -> Commands:
    """Redis takes the app's password, now and after a restart: beside those that it takes already, or alone.

    Connections that came in by another one stay. The live release has one of the others until the next one serves; in
    between a converge may stop, and Redis restart. What the app's user may do is as declared from now on, too, and
    Redis admits its administrator.

    + administrator: the file of that one's password on the droplet
    + dest: what it starts with, on standard input
    + directives: what else that says
    """
    user = host.get_fact(RedisUsers, container=container)
    # A plan of the first converge finds none yet: the operation before this one makes it.
    admin = host.get_fact(Sha256File, path=administrator) or "0" * 64
    wanted = sha256(password.encode()).hexdigest()
    others = user.passwords - {wanted}
    if exclusive and not others and not state.is_executing:
        host.noop("Redis will admit it alone")
        return
    kept = [wanted] if exclusive else [wanted, *sorted(others)]
    # The passwords by their hashes, so that no byte of them needs quoting.
    app = f"user default on {' '.join(f'#{one}' for one in kept)} {APP}"
    content = f"{directives}{app}\nuser {ADMINISTRATOR} {_admin(admin)}\n"
    yield from atomic_file._inner(dest=dest, content=content.encode(), mode="600", secret=True)  # noqa: SLF001
    # One that isn't there yet starts with the declared one; by the time that it is to admit no other, it has to answer.
    to_come = not user.passwords and not exclusive
    admits = user.passwords == {wanted} or (wanted in user.passwords and not exclusive)
    if to_come or (admits and user.by_administrator and user.rules == RULES):
        return
    yield _told_to_redis(
        "administrator" if user.by_administrator else "password",
        container,
        # The administrator first: the user who asks may lose the right to do so by the second line.
        [
            f"ACL SETUSER {ADMINISTRATOR} reset {_admin(admin)}",
            f"ACL SETUSER default {'resetpass ' if exclusive else ''}#{wanted} {APP}",
        ],
    )


def _told_to_redis(who: Literal["administrator", "password"], container: str, lines: list[str]) -> StringCommand:
    """Gives Redis these two lines. Its answers count: redis-cli itself ends with 0 whatever Redis says."""
    ask = f'test "$({redis_cli(who)} | grep -cx OK)" = {len(lines)}'
    refused = (
        f"Redis refuses both of its users, and starts with the declared ones. Next: sudo docker restart {container}, "
        "make site"
    )
    return StringCommand(
        *("docker exec -i", QuoteString(container), "sh -c", QuoteString(ask)),
        *("|| { echo", QuoteString(refused), ">&2; false; }"),
        _stdin=lines,
    )


def _admin(sha256_of_password: str) -> str:
    return f"on #{sha256_of_password} ~* &* +@all"


def _created(role: str) -> str:
    missing = f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
    return f"SELECT 'CREATE ROLE \"{role}\"' WHERE {missing} \\gexec"
