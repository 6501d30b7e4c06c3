"""PostgreSQL and Redis, in a Compose project that no release changes."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import MAX_CONNECTIONS
from deploys.operations.data import data_directory, generated_secret, postgres_roles, redis_password
from deploys.operations.docker import compose_accepts, compose_up
from deploys.operations.files import atomic_file, private_directory

UID = 999
"""The user ID in the official images of both PostgreSQL and Redis."""
REDIS_CONF = "data_services/redis.conf"
REDIS_START = "data_services/redis-start"


@deploy("data_services")
def data_services(settings: Settings) -> None:
    values, paths = settings.values, settings.paths
    declared = fingerprint(settings)

    _directories(settings)
    _passwords(settings)
    _configuration(settings, declared)
    compose_up(
        name="Start PostgreSQL and Redis",
        project=paths.docker.data_project,
        file=str(paths.data_yaml),
        images={"postgres": values.postgres_image, "redis": values.redis_image},
        label=paths.docker.sha256_label,
        sha256=declared,
    )
    postgres_roles(
        name="Set the app's roles and password in PostgreSQL",
        container=paths.docker.data_container("postgres"),
        database=values.database,
        owner=values.database_user,
        login=settings.login_role,
        password=settings.credentials.database_password,
    )


def _directories(settings: Settings) -> None:
    paths = settings.paths
    for service in host.loop(("postgres", "redis")):
        private_directory(name=f"Create the directory for {service}'s secrets", path=str(paths.secrets / service))
        data_directory(
            name=f"Create {service}'s data directory",
            path=f"{settings.values.data_root}/{service}",
            uid=UID,
            installed=str(paths.data_yaml),
        )


def _passwords(settings: Settings) -> None:
    paths = settings.paths
    atomic_file(
        name="Write PostgreSQL's password",
        dest=str(paths.secrets / "postgres/password"),
        content=settings.credentials.database_password.encode(),
        mode="600",
        secret=True,
    )
    generated_secret(name="Create a password for Redis's administrator", dest=str(paths.redis_administrator))
    # First add the new password in Redis, and then replace the file with the old password. If Redis has no
    # administrator yet, the login to Redis needs the old password, which is still in the file.
    _redis_password(
        settings,
        name="Make Redis accept the declared password too",
        exclusive=False,
    )
    atomic_file(
        name="Write Redis's password",
        dest=str(paths.secrets / "redis/password"),
        content=settings.credentials.redis_password.encode(),
        mode="600",
        secret=True,
    )


def _configuration(settings: Settings, declared: str) -> None:
    values, paths = settings.values, settings.paths
    atomic_file(
        name="Configure Redis",
        dest=str(paths.opt / "redis.conf"),
        content=build.file(REDIS_CONF),
        validate=_redis_accepts(values.redis_image, "%s"),
    )
    atomic_file(
        name="Install Redis's start script",
        dest=str(paths.opt / "redis-start"),
        content=build.file(REDIS_START),
        validate="sh -n %s",
    )
    atomic_file(
        name="Write data.yaml",
        dest=str(paths.data_yaml),
        content=compose_file(settings, sha256=declared),
        validate=_services_accepted(values.redis_image, f"{paths.opt}/redis.conf"),
    )


@deploy("retire_old_redis_passwords")
def retire_old_redis_passwords(settings: Settings) -> None:
    """Remove old passwords from Redis.

    Run this deploy after `app`, because the live release does not use the new password before `app` has run. For
    PostgreSQL, stackctl drops the old login roles.
    """
    _redis_password(settings, name="Remove all passwords except the declared one from Redis", exclusive=True)


def _redis_password(settings: Settings, *, name: str, exclusive: bool) -> None:
    redis_password(
        name=name,
        container=settings.paths.docker.data_container("redis"),
        password=settings.credentials.redis_password,
        administrator=str(settings.paths.redis_administrator),
        dest=str(settings.paths.secrets / "redis/redis.conf"),
        directives=_redis_directives(settings),
        exclusive=exclusive,
    )


def fingerprint(settings: Settings) -> str:
    """Return a hash of all inputs of the containers except the passwords.

    The passwords are left out, because a changed password needs no new container.
    """
    return build.fingerprint(
        compose_file(settings, sha256=""),
        build.file(REDIS_CONF),
        build.file(REDIS_START),
        _redis_directives(settings).encode(),
    )


def compose_file(settings: Settings, *, sha256: str) -> bytes:
    """Render data.yaml. `sha256` is the hash of the containers' inputs, and becomes a label of each container."""
    return build.template(
        "data_services/data.yaml.j2",
        values=settings.values,
        paths=settings.paths,
        shared_buffers_mib=settings.values.postgres_memory_mib // 4,  # PostgreSQL's manual, 19.4.1
        max_connections=MAX_CONNECTIONS,
        sha256=sha256,
    )


def _services_accepted(image: str, conf: str) -> str:
    """Return a command that tests data.yaml.

    The command also tests redis.conf, because a new image of Redis may reject redis.conf.
    """
    return f"{compose_accepts()} && {{ {_redis_accepts(image, conf)}; }}"


def _redis_accepts(image: str, conf: str) -> str:
    """Return a command that tests redis.conf.

    If the file is invalid, Redis exits immediately. If the file is valid, timeout(1) ends Redis, which the test counts
    as success.
    """
    mount = f"--mount type=bind,source={conf},target=/redis.conf,readonly"
    apart = "--rm --network none --user 999:999 --cap-drop ALL"
    # Redis also exits immediately if it has no port and no socket. So the test gives Redis a socket in the container.
    server = "timeout 2 redis-server /redis.conf --port 0 --unixsocket /tmp/redis.sock --dir /tmp --save ''"
    return f"docker run {apart} {mount} --entrypoint '' {shlex.quote(image)} {server}; test $? = 124"


def _redis_directives(settings: Settings) -> str:
    """Return the lines that Redis reads from standard input, except the lines with passwords.

    maxmemory is half of the container's limit, because during a save the kernel copies each page of memory that Redis
    changes.
    """
    values = settings.values
    append_only = "yes" if values.redis_append_only else "no"
    return f"include /etc/redis/redis.conf\nmaxmemory {values.redis_memory_mib // 2}mb\nappendonly {append_only}\n"
