"""The disk is full, or has no inode left. The site says so, and loses no acknowledged row.

Once there is room again, the site comes back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.system.vm.machine import another, live, lost_rows, problems, under_load, wait_for_answers, wait_until_well

BALLAST = "/var/tmp/ballast"
FILES = """
import os
os.mkdir("/var/tmp/ballast")
for directory in range(10_000):
    os.mkdir(f"/var/tmp/ballast/{directory}")
    for number in range(1_000):
        os.mknod(f"/var/tmp/ballast/{directory}/{number}")
"""
Show = Callable[[str], None]


@contextmanager
def full(machine: Host, fault: str) -> Iterator[None]:
    """Use all blocks or all inodes of the disk."""
    machine.check_output("sync")
    if fault == "blocks":
        machine.run(f"fallocate -l 1T {BALLAST}; head -c 1G /dev/zero >> {BALLAST}; sync")
    else:
        machine.run(f"python3 -c '{FILES}'")
    kind = "--output=avail" if fault == "blocks" else "--output=iavail"
    assert machine.check_output(f"df {kind} / | tail -n 1").strip() == "0"
    try:
        yield
    finally:
        machine.check_output(f"rm -rf {BALLAST}")


@pytest.mark.parametrize("fault", ["blocks", "inodes"])
def test_a_full_disk(vm: Environment, machine: Host, show: Show, fault: str) -> None:
    tag, new = live(machine), another(machine)
    with under_load(vm) as running:
        running.phase(fault)
        with full(machine, fault):
            told = problems(machine)
            backup, release = (machine.run(f"stackctl {verb}") for verb in ("backup", f"release {new}"))
            login = machine.run("sudo -n true").rc
        running.phase("room again")
        wait_for_answers(running)
    show(f"problems: {told}\nbackup: {backup.stderr.strip()}\nrelease: {release.stderr.strip()}")
    show(running.tally.table())
    assert login == 0
    assert backup.rc != 0
    assert release.rc != 0
    assert [one for one in told if "disk" in one]
    assert not lost_rows(vm, running)
    host = wait_until_well(vm)
    assert live(host) == tag
    host.check_output("stackctl backup")
    assert not host.check_output("ls /opt/backups | grep partial || true")
