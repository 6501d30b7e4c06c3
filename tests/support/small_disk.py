"""A small ext4 file system in the droplet, on a file behind a loop device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testinfra.host import Host

from tests.lab import machine
from tests.lab.host import run
from tests.support.under_way import DROPLET

LOOP = 7
"""The major device number of loop devices in Linux."""
FILE = DROPLET.root / "var/tmp/small-disk"
NODE = "/dev/small-disk"


@contextmanager
def small_disk(droplet: Host, mebibytes: int, mount_point: str) -> Iterator[None]:
    """Mount a small, empty file system that only root can use."""
    with FILE.open("wb") as content:
        content.truncate(mebibytes << 20)
    device = ""
    try:
        # `-m 0` reserves no blocks for root, because the writer is root.
        run("mkfs.ext4", "-q", "-m", "0", FILE)
        device = run("losetup", "--find", "--show", FILE).strip()
        # In a container, no program creates the device node of a loop device. The container shares this machine's
        # kernel.
        droplet.check_output(f"mknod {NODE} b {LOOP} {device.removeprefix('/dev/loop')}")
        droplet.check_output(
            f"mkdir -p {mount_point} && mount {NODE} {mount_point} && chmod 700 {mount_point}"
            f" && rmdir {mount_point}/lost+found"
        )
        try:
            yield
        finally:
            droplet.check_output(f"umount {mount_point}")
    finally:
        droplet.check_output(f"rm -f {NODE}")
        if device:
            run("losetup", "--detach", device)
        FILE.unlink()


def fill(directory: str) -> None:
    """Fill all but a few blocks with one command.

    On a full disk, fallocate fails, but keeps the blocks that it had already allocated.
    """
    machine.inside(DROPLET, "sh", "-c", f"fallocate -l 2G {directory}/ballast || truncate -s -8K {directory}/ballast")
