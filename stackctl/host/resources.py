"""Checks the resources of the droplet itself: the space and the inodes of its disks, and its clock."""

from pathlib import Path

from stackctl.core import disk
from stackctl.core.config import Config
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths

FEWEST_INODES = 10_000
"""Docker needs several thousand inodes for the files of one image."""
CLOCK_GRACE_S = 600
"""A droplet that has just booted may not have reached a time server yet."""


def problems(paths: Paths, config: Config, machine: Machine) -> list[str]:
    """Return the problems."""
    directories = [paths.root, paths.backups, *([Path(config.data.root)] if config.data else [])]
    disks = {machine.disk(directory): directory for directory in reversed(directories) if directory.is_dir()}
    lines = [line for directory in reversed(disks.values()) for line in _full(directory, machine)]
    return lines + _clock(paths, machine)


def _full(directory: Path, machine: Machine) -> list[str]:
    """If a disk is full, PostgreSQL stops. A directory that is not a mount point stands for the disk that it is on."""
    look = "sudo du --one-file-system --threshold=100M"
    if (free := machine.free(directory)) < disk.SPARE:
        return [
            f"the disk of {directory} is full: it has {free >> 20} MiB left. Next: {look} {directory}, then make room"
        ]
    if (inodes := machine.free_inodes(directory)) < FEWEST_INODES:
        look = "sudo du --one-file-system --inodes --threshold=10000"
        return [
            f"the disk of {directory} can create only {inodes} more files, because it has no more inodes. "
            f"Next: {look} {directory}, then delete files"
        ]
    return []


def _clock(paths: Paths, machine: Machine) -> list[str]:
    """Check that a time server has set the clock. A wrong clock breaks certificates and the order of backups.

    systemd-timesyncd does not run in a container, which has its host's clock.
    """
    if paths.in_container.exists() or paths.time_set.exists() or machine.monotonic() < CLOCK_GRACE_S:
        return []
    return ["no time server has set the clock since the boot. Next: timedatectl timesync-status"]
