"""The checks before a release changes anything.

If a check fails, a RefusedError names the cause and the next command.
"""

from collections.abc import Mapping
from contextlib import suppress

from stackctl.app.stack import Stack
from stackctl.backup import create
from stackctl.core import disk
from stackctl.core.errors import RefusedError
from stackctl.core.paths import DATA_SERVICES
from stackctl.services.postgres import Postgres


def check(stack: Stack, values: Mapping[str, str]) -> None:
    """Check that the files, the app environment and the data services are ready for a release or a rollback."""
    paths, config = stack.paths, stack.config
    for file in (paths.app_yaml, *((paths.worker_yaml,) if config.worker else ())):
        if not file.exists():
            raise RefusedError(f"{file} is missing", next_step="converge the site (make site)")
    telegram = ("TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET") if config.webhook_path else ()
    missing = [name for name in ("ENVIRONMENT", "PUBLIC_URL", "DATABASE_URL", *telegram) if not values.get(name)]
    if missing:
        raise RefusedError(f"the app environment lacks {', '.join(missing)}", next_step="converge the site (make site)")
    if not config.data:
        return
    check_data(stack)
    room = Postgres(stack.docker, paths, config.data).capacity()
    if room.connections < config.connections:
        raise RefusedError(
            f"PostgreSQL has {room.connections} connections left, but a colour may need {config.connections}",
            next_step="see which clients hold the connections (pg_stat_activity)",
        )


def check_data(stack: Stack) -> None:
    """Check that PostgreSQL and Redis are healthy."""
    paths, config = stack.paths, stack.config
    # After a restart of Docker, the health of a container is unknown until the container's next health check.
    with suppress(TimeoutError):
        stack.wait("preflight", config.healthy_timeout, lambda: _starting(stack))
    well = {container.service for container in stack.docker.containers(paths.docker.data_project) if container.well}
    unwell = [service for service in DATA_SERVICES if service not in well]
    if unwell:
        raise RefusedError(
            f"not healthy: {' and '.join(unwell)}", next_step=f"systemctl restart {paths.units.app}, then docker logs"
        )


def _starting(stack: Stack) -> str | None:
    starting = [c for c in stack.docker.containers(stack.paths.docker.data_project) if c.health == "starting"]
    return ", ".join(f"{container.service} is {container.condition}" for container in starting) or None


def check_disk_space(stack: Stack) -> None:
    """Raise RefusedError unless a new image and a dump fit on the disk. Also check the version of PostgreSQL."""
    disk.check(stack.paths.var, stack.machine.free(stack.paths.var), {"an image": disk.IMAGE})
    data = stack.config.data
    if not data:
        return
    room = Postgres(stack.docker, stack.paths, data).capacity()
    if room.major != data.major:
        raise RefusedError(
            f"PostgreSQL {room.major} is running, but {data.major} is declared",
            next_step="converge the site (make site)",
        )
    create.check_disk_space(stack, room.database_bytes, image=disk.IMAGE)
