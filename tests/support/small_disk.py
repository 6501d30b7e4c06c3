"""A file system in the droplet that is soon full: a real one, ext4 on a file behind a loop device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testinfra.host import Host

from tests.lab import machine
from tests.lab.host import run
from tests.support.under_way import DROPLET

LOOP = 7
"""Linux's number for such devices."""
FILE = DROPLET.root / "var/tmp/small-disk"
NODE = "/dev/small-disk"


@contextmanager
def small_disk(droplet: Host, mebibytes: int, place: str) -> Iterator[None]:
    """Mounted there, empty, root's alone."""
    with FILE.open("wb") as content:
        content.truncate(mebibytes << 20)
    device = ""
    try:
        # -m 0: none of it is kept for root, who it is that writes.
        run("mkfs.ext4", "-q", "-m", "0", FILE)
        device = run("losetup", "--find", "--show", FILE).strip()
        # In a container nobody makes a device's node; the kernel is this machine's.
        droplet.check_output(f"mknod {NODE} b {LOOP} {device.removeprefix('/dev/loop')}")
        droplet.check_output(
            f"mkdir -p {place} && mount {NODE} {place} && chmod 700 {place} && rmdir {place}/lost+found"
        )
        try:
            yield
        finally:
            droplet.check_output(f"umount {place}")
    finally:
        droplet.check_output(f"rm -f {NODE}")
        if device:
            run("losetup", "--detach", device)
        FILE.unlink()


def fill(place: str) -> None:
    """All but a few blocks of it, and at once: what is asked for beyond what there was is refused, the rest kept."""
    machine.inside(DROPLET, "sh", "-c", f"fallocate -l 2G {place}/ballast || truncate -s -8K {place}/ballast")
