"""stackctl, the droplet's program, and its configuration."""

from __future__ import annotations

from collections.abc import Collection

from pyinfra import host
from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.config.values import STOP_GRACE_S
from deploys.operations.files import atomic_file, private_directory
from stackctl.cli.background import PROGRAM
from stackctl.core import records
from stackctl.core.config import VERSION, Certificate, Config, Data


@deploy("stackctl")
def stackctl(settings: Settings) -> None:
    paths = settings.paths
    private_directory(name="Create the directory for secrets", path=str(paths.secrets))
    atomic_file(
        name="Install stackctl",
        dest=PROGRAM,
        content=build.stackctl(settings.values.app),
        mode="755",
        validate="python3 %s --help",
    )
    atomic_file(name="Write stackctl.json", dest=str(paths.config), content=stackctl_config(settings, host.groups))


def stackctl_config(settings: Settings, groups: Collection[str]) -> bytes:
    """Render stackctl.json for a host that is in these groups."""
    values = settings.values
    certificate = Certificate(domain=values.domain, server=values.acme_server, email=values.acme_email)
    data = Data(
        database=values.database,
        owner=values.database_user,
        major=values.postgres_major,
        backup_memory_mib=values.backup_memory_mib,
        root=values.data_root,
    )
    config = Config(
        app=values.app,
        environment=values.environment,
        operator=values.operator,
        repository=values.app_repository,
        colours={colour: str(address) for colour, address in values.colours.items()},
        healthy_timeout=values.healthy_timeout_s,
        migrate_timeout=values.migrate_timeout_s,
        stop_grace=STOP_GRACE_S,
        worker_grace=values.worker_grace_s,
        watch=values.watch_s,
        connections=values.app_connections,
        migrate=values.app_migrates,
        worker=values.app_worker,
        ready_path=values.ready_path,
        version_path=values.version_path,
        webhook_path=values.webhook_path,
        public_paths=tuple(path for path in values.public_paths if path != values.webhook_path),
        certificate=certificate if "edge" in groups else None,
        data=data if "data" in groups else None,
        isolated=settings.isolated,
        instance_id=settings.instance_id,
    )
    return records.dumps(config, version=VERSION, indent=2)
