"""The nightly backup by stackctl."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.files import private_directory
from deploys.operations.units import service, systemd_units


@deploy("backups")
def backups(settings: Settings) -> None:
    paths = settings.paths
    timer = paths.units.backup_timer
    private_directory(name="Create the backup directory", path=str(paths.backups))
    systemd_units(
        name="Install the backup units",
        units=units(settings),
        handler="units-of-backups",
        restart=[timer],
    )
    # An isolated droplet must not send backups, because it shares the off-site storage with the original droplet.
    on = not settings.isolated
    service(name=f"Start {timer}" if on else f"Stop {timer}", unit=timer, running=on, enabled=on)


def units(settings: Settings) -> dict[str, bytes]:
    """Return the content of each systemd unit, by the unit's name."""
    paths, values = settings.paths, settings.values
    return {
        paths.units.backup_service: build.template(
            "backups/backup.service.j2", paths=paths, data_root=values.data_root
        ),
        paths.units.backup_timer: build.template("backups/backup.timer.j2", backup_at=values.backup_at),
    }
