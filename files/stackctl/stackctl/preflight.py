"""What has to be right before a release changes anything: RefusedError says what isn't, and what to do."""

from collections.abc import Mapping

from . import backup
from .config import Data
from .errors import RefusedError
from .paths import DATA_SERVICES
from .postgres import Postgres
from .stack import Stack

IMAGES_SPARE = 512 << 20
"""Bytes that Docker needs for a new image, at least."""


def check(stack: Stack, values: Mapping[str, str]) -> None:
    paths, config = stack.paths, stack.config
    for file in (paths.app_yaml, *((paths.worker_yaml,) if config.worker else ())):
        if not file.exists():
            raise RefusedError(f"{file} is missing: converge the site (make site)")
    _check_environment(stack, values)
    if (free := stack.machine.free(paths.var)) < IMAGES_SPARE:
        raise RefusedError(f"the disk has {free >> 20} MiB left, an image may need {IMAGES_SPARE >> 20}: make room")
    if config.data:
        _check_data(stack, config.data)


def _check_environment(stack: Stack, values: Mapping[str, str]) -> None:
    telegram = ("TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET", "PUBLIC_URL") if stack.config.webhook_path else ()
    missing = [name for name in ("ENVIRONMENT", *telegram) if not values.get(name)]
    if missing:
        raise RefusedError(f"the app's environment lacks {', '.join(missing)}: converge the site (make site)")


def _check_data(stack: Stack, data: Data) -> None:
    paths, config = stack.paths, stack.config
    well = {container.service for container in stack.docker.containers(paths.data_project) if container.well}
    unwell = [service for service in DATA_SERVICES if service not in well]
    if unwell:
        raise RefusedError(f"{' and '.join(unwell)} not healthy: systemctl restart {paths.unit}, then docker logs")
    room = Postgres(stack.docker, paths, data).room()
    if room.major != data.major:
        raise RefusedError(f"PostgreSQL {room.major} runs, {data.major} is declared: converge the site first")
    if room.connections < config.connections:
        raise RefusedError(
            f"PostgreSQL has {room.connections} connections left, a colour may need {config.connections}: "
            "see who holds them (pg_stat_activity)"
        )
    backup.check_room(stack, room)
