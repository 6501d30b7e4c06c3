"""Operations for the directories, secrets and users of PostgreSQL and Redis."""

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
"""Redis's rules for the commands that the app's user may give.

The category @dangerous contains every administrative command: CONFIG, DEBUG, MODULE, REPLICAOF, ACL, SHUTDOWN, SAVE,
MONITOR, CLIENT KILL, FAILOVER. @dangerous also contains RESTORE, which parses arbitrary bytes. The last rules permit
again the commands that libraries and frameworks use, and the commands that show or change only keys, because the keys
belong to the app anyway. EVAL is not in @dangerous and stays permitted, because apps use EVAL for locks, queues and
rate limits.
"""
APP = f"~* &* {RULES}"


@operation()
def data_directory(path: str, *, uid: int, installed: str) -> Commands:
    """Create a data directory, but only before the data services have run for the first time.

    + installed: a file that exists once the services have run. If the file `installed` exists and the data directory is
      missing, the volume is not mounted. With a new directory, PostgreSQL would start an empty database
      (docs/adr/0012-data-directories.md).
    """
    there = host.get_fact(DirectoryState, path=path)
    target = QuoteString(path)
    if there == f"700 {uid} {uid}":
        host.noop(f"{path} exists")
    elif there == LINK:
        # Refuse a symbolic link, because chown would change the target of the link. stackctl follows no link below
        # data_root (openat.py).
        yield StringCommand(
            "echo", QuoteString(f"{path} is a symbolic link. Next: mount the volume at {path} instead"), ">&2; false"
        )
    elif there:
        yield StringCommand(f"chown {uid}:{uid}", target, "&& chmod 700", target)
    elif host.get_fact(File, path=installed):
        cause = f"{path} is missing, although the data services have run before"
        remedy = f"mount the volume of {PurePosixPath(path).parent}, then make site"
        yield StringCommand("echo", QuoteString(f"{cause}. Next: {remedy}"), ">&2; false")
    else:
        yield StringCommand(f"install -d -m 700 -o {uid} -g {uid}", target)


@operation()
def postgres_roles(container: str, *, database: str, owner: str, login: str, password: str) -> Commands:
    """Create two roles.

    `login` has the password and acts as `owner`. The role `owner` owns the tables and can't log in.

    The database belongs to the superuser, because the owner of a database can store settings for every session in that
    database (ALTER DATABASE … SET). The superuser `postgres` has no password, and connects only over the container's
    own socket.
    """
    if host.get_fact(RolesAsDeclared, container=container, owner=owner, login=login, database=database):
        host.noop(f"{login} logs in and acts as {owner}")
        return
    # A role of the app may hold a lock forever, so wait at most ten seconds for a lock.
    settings = session(OF_SUPERUSER | {"lock_timeout": "10s"})
    yield StringCommand(
        *("docker exec -i --env", QuoteString(f"PGOPTIONS={settings}"), QuoteString(container)),
        *("psql --quiet --no-psqlrc -v ON_ERROR_STOP=1", f"--username={SUPERUSER} --dbname={ADMIN}"),
        _stdin=_statements(database, owner, login, password),
    )


def _statements(database: str, owner: str, login: str, password: str) -> list[str]:
    """Return the input for psql that creates missing roles, and sets every property that can differ."""
    # A backslash needs no escape, because standard_conforming_strings is on. The statement appears neither in the
    # server's log nor in psql's output, even if the statement fails.
    quoted = password.replace("'", "''")
    plain = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
    return [
        "\\set VERBOSITY terse",
        "SET log_statement = 'none';",
        "SET log_min_error_statement = 'panic';",
        "BEGIN;",
        *(_create_if_missing(role) for role in (owner, login)),
        f'ALTER ROLE "{owner}" NOLOGIN {plain};',
        f"ALTER ROLE \"{login}\" LOGIN {plain} PASSWORD '{quoted}';",
        f'GRANT "{owner}" TO "{login}";',
        # The login role acts as the owner, so all objects that the app creates belong to the owner. The next login role
        # also acts as the owner, so the next login role can use these objects.
        f'ALTER ROLE "{login}" RESET ALL;',
        f'ALTER ROLE "{login}" IN DATABASE "{database}" RESET ALL;',
        f'ALTER ROLE "{login}" SET role = "{owner}";',
        f'ALTER DATABASE "{database}" OWNER TO {SUPERUSER};',
        f'GRANT {", ".join(PRIVILEGES)} ON DATABASE "{database}" TO "{owner}";',
        f"ALTER ROLE {SUPERUSER} PASSWORD NULL;",
        "COMMIT;",
        # The remaining statements run in the app's own database.
        f'\\connect "{database}"',
        # Skip the schema public if it is missing, because an app may have dropped the schema.
        f"SELECT 'ALTER SCHEMA public OWNER TO \"{owner}\"' FROM pg_namespace WHERE nspname = 'public' \\gexec",  # noqa: S608
    ]


@operation()
def generated_secret(dest: str) -> Commands:
    """Create a random secret on the droplet, unless the secret already exists. The secret never leaves the droplet."""
    found = host.get_fact(FileState, path=dest)
    if found and (found["mode"], found["owner"], found["group"]) == ("600", "root", "root"):
        host.noop(f"{dest} exists")
        return
    target, fresh = QuoteString(dest), QuoteString(f"{dest}.new")
    # A secret of 256 bits in hexadecimal needs no quoting. The file has no line end, so that the hash of the file is
    # also the hash of the secret.
    made = StringCommand("umask 077; head -c 32 /dev/urandom | sha256sum | head -c 64 >", fresh, "&& sync", fresh)
    yield StringCommand("test -s", target, "|| {", made, "&& mv -fT", fresh, target, "; }")
    yield StringCommand("chown root:root", target, "&& chmod 600", target)


@operation()
def redis_password(  # noqa: PLR0913 - two users and a file
    container: str, *, password: str, administrator: str, dest: str, directives: str, exclusive: bool = False
) -> Commands:
    """Make Redis accept the app's password, now and after a restart.

    The operation also sets the permissions of the app's user, and the administrator's password. Redis keeps its present
    passwords, even over a restart, because the live release uses one of them until the next release is live. With
    `exclusive`, Redis accepts only the app's new password. Open connections stay open.

    + administrator: the file on the droplet that holds the administrator's password
    + dest: the file that Redis reads from standard input when Redis starts
    + directives: the other lines of the file `dest`
    """
    user = host.get_fact(RedisUsers, container=container)
    # When the first converge is planned, the file does not exist yet. An earlier operation creates it.
    admin = host.get_fact(Sha256File, path=administrator) or "0" * 64
    wanted = sha256(password.encode()).hexdigest()
    others = user.passwords - {wanted}
    if exclusive and not others and not state.is_executing:
        host.noop("Redis accepts no other password")
        return
    kept = [wanted] if exclusive else [wanted, *sorted(others)]
    # Redis gets hashes of the passwords, which need no quoting.
    app = f"user default on {' '.join(f'#{password_hash}' for password_hash in kept)} {APP}"
    content = f"{directives}{app}\nuser {ADMINISTRATOR} {_admin(admin)}\n"
    yield from atomic_file._inner(dest=dest, content=content.encode(), mode="600", secret=True)  # noqa: SLF001
    # If Redis does not run yet, Redis will start with the declared password. With `exclusive`, Redis must be running.
    starts_later = not user.passwords and not exclusive
    accepted = user.passwords == {wanted} or (wanted in user.passwords and not exclusive)
    if starts_later or (accepted and user.by_administrator and user.rules == RULES):
        return
    yield _send_to_redis(
        "administrator" if user.by_administrator else "password",
        container,
        # Set the administrator first, because the second command may forbid ACL SETUSER to its sender.
        [
            f"ACL SETUSER {ADMINISTRATOR} reset {_admin(admin)}",
            f"ACL SETUSER default {'resetpass ' if exclusive else ''}#{wanted} {APP}",
        ],
    )


def _send_to_redis(who: Literal["administrator", "password"], container: str, lines: list[str]) -> StringCommand:
    """Return the command that sends lines to Redis and checks the answers.

    The command checks the answers, because redis-cli exits with 0 even if Redis answers with an error.
    """
    ask = f'test "$({redis_cli(who)} | grep -cx OK)" = {len(lines)}'
    refused = (
        f"Redis rejects the passwords of its users. After a restart, Redis accepts the declared passwords. Next: sudo "
        f"docker restart {container}, then make site"
    )
    return StringCommand(
        *("docker exec -i", QuoteString(container), "sh -c", QuoteString(ask)),
        *("|| { echo", QuoteString(refused), ">&2; false; }"),
        _stdin=lines,
    )


def _admin(sha256_of_password: str) -> str:
    return f"on #{sha256_of_password} ~* &* +@all"


def _create_if_missing(role: str) -> str:
    missing = f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
    return f"SELECT 'CREATE ROLE \"{role}\"' WHERE {missing} \\gexec"
