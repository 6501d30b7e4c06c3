"""Timers that look after the host: upgrades, the reboots that upgrades require, and weekly checks.

One weekly check compares Debian's files with their packages, and the other weekly check reads PostgreSQL's tables and
indexes.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.units import UNITS, service, systemd_units


@deploy("upkeep")
def upkeep(settings: Settings) -> None:
    paths = settings.paths
    wanted = units(settings, data="data" in host.groups)
    ours = [name for name in wanted if name.endswith(".timer")]
    systemd_units(name="Install the upkeep units", units=wanted, handler="units-of-upkeep", restart=ours)
    if not settings.values.reboot_at:
        service(name="Stop the reboot timer", unit=paths.units.reboot_timer, running=False, enabled=False)
        files.file(name="Remove the reboot timer", path=str(UNITS / paths.units.reboot_timer), present=False)
    for timer in host.loop(["apt-daily-upgrade.timer", *ours]):
        # An isolated droplet neither backs up nor checks its data.
        on = timer != paths.units.amcheck_timer or not settings.isolated
        service(name=f"Start {timer}" if on else f"Stop {timer}", unit=timer, running=on, enabled=on)


def units(settings: Settings, *, data: bool) -> dict[str, bytes]:
    """Return the content of each unit and drop-in, by its name. `data` means that PostgreSQL is on this host."""
    paths, values = settings.paths, settings.values
    found = {
        f"apt-daily-upgrade.service.d/{values.app}.conf": build.template("upkeep/upgrade.conf.j2", paths=paths),
        paths.units.integrity_service: build.template(
            "upkeep/integrity.service.j2", paths=paths, data_root=values.data_root
        ),
        paths.units.integrity_timer: build.file("upkeep/integrity.timer"),
        paths.units.reboot_service: build.template("upkeep/reboot.service.j2", paths=paths),
    }
    if values.reboot_at:
        found[paths.units.reboot_timer] = build.template("upkeep/reboot.timer.j2", reboot_at=values.reboot_at)
    if data:
        found[paths.units.amcheck_service] = build.template(
            "upkeep/amcheck.service.j2", paths=paths, data_root=values.data_root
        )
        found[paths.units.amcheck_timer] = build.file("upkeep/amcheck.timer")
    return found
