"""What stackctl does for the data by itself: a backup each night, a look at PostgreSQL's files each week."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files, systemd

from deploys import artifacts
from deploys.operations.files import place
from deploys.operations.owed import settle
from deploys.settings import Settings


@deploy("backups")
def backups(settings: Settings) -> None:
    paths, debt = settings.paths, settings.owed("units-of-backups")
    files.directory(
        name="Keep backups where root alone looks", path=str(paths.backups), mode="700", user="root", group="root"
    )
    placed = [
        place(name=f"Place {name}", dest=f"/etc/systemd/system/{name}", content=content, owes=debt)
        for name, content in host.loop(units(settings).items())
    ]
    settle(
        name="Have systemd read when backups are made",
        debt=debt,
        commands=["systemctl daemon-reload", f"systemctl try-restart {paths.backup_timer} {paths.amcheck_timer}"],
        after=placed,
    )
    for timer in host.loop((paths.backup_timer, paths.amcheck_timer)):
        systemd.service(name=f"Run {timer}", service=timer, running=True, enabled=True)


def units(settings: Settings) -> dict[str, bytes]:
    """systemd's units by name."""
    paths, values = settings.paths, settings.values
    return {
        paths.backup_service: artifacts.template("backups/backup.service.j2", paths=paths, data_root=values.data_root),
        paths.backup_timer: artifacts.template("backups/backup.timer.j2", backup_at=values.backup_at),
        paths.amcheck_service: artifacts.template(
            "backups/amcheck.service.j2", paths=paths, data_root=values.data_root
        ),
        paths.amcheck_timer: artifacts.file("backups/amcheck.timer"),
    }
