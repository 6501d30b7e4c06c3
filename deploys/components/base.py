"""The base system of every droplet: packages, host name, time zone, journal and swap."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import files, server

from deploys import build
from deploys.config.settings import Settings
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler, run_handler
from deploys.operations.machine import new_machine_id, swapfile, wait_for_cloud_init
from deploys.operations.packages import packages, repair_interrupted_dpkg

RESTART_JOURNALD = Handler("journald", ["systemctl restart systemd-journald.service"])


@deploy("base")
def base(settings: Settings) -> None:
    values = settings.values

    wait_for_cloud_init(name="Wait for cloud-init, which holds apt on a first boot")
    if settings.is_copy:
        # must come before the component `stackctl`, which records that the droplet is no copy any more
        new_machine_id(name="Give the copy a machine ID of its own")
    atomic_file(
        name="Configure apt to wait for its lock and to install security updates",
        dest=f"/etc/apt/apt.conf.d/90{values.app}",
        content=build.file("base/apt.conf"),
        validate="apt-config --config-file=%s dump",
    )
    repair_interrupted_dpkg(name="Finish an interrupted installation of packages")
    packages(
        name="Install base packages",
        packages=["ca-certificates", "curl", "unattended-upgrades", "systemd-timesyncd"],
    )
    _hostname(settings)
    server.timezone(name="Set the time zone", timezone=values.timezone)
    _journal(settings)
    swapfile(name="Create the swap file", mib=values.swap_mib)


def _hostname(settings: Settings) -> None:
    server.hostname(name="Set the hostname", hostname=host.name)
    atomic_file(
        name="Stop cloud-init from resetting the hostname and /etc/hosts",
        dest=f"/etc/cloud/cloud.cfg.d/99-{settings.values.app}.cfg",
        content=build.file("base/keep-hostname.cfg"),
    )
    # If a droplet was created without our user data, cloud-init writes the same line to the file at each boot.
    files.line(
        name="Add the hostname to /etc/hosts",
        path="/etc/hosts",
        line=r"^127\.0\.1\.1\s.*$",
        replace=f"127.0.1.1 {host.name} {host.name}",
    )


def _journal(settings: Settings) -> None:
    values = settings.values
    journal = atomic_file(
        name="Limit the journal's size",
        dest=f"/etc/systemd/journald.conf.d/{values.app}.conf",
        content=build.template("base/journald.conf.j2", max_mib=values.journal_max_mib),
        notify=RESTART_JOURNALD,
    )
    run_handler(name="Restart journald", handler=RESTART_JOURNALD, after=[journal])
