"""The machine boots with a wrong clock, with more or less memory, or because an upgrade asks for a reboot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from testinfra.host import Host

from tests.lab import machine as machines
from tests.lab import qemu
from tests.lab.layout import VM
from tests.support import converge
from tests.support.environment import Environment
from tests.system.vm.machine import (
    Run,
    another,
    connect,
    live,
    lost_rows,
    switched_off,
    under_load,
    wait_for_answers,
    wait_until_well,
)

MONTH = timedelta(days=30)


def boot_id(machine: Host) -> str:
    return str(machine.check_output("cat /proc/sys/kernel/random/boot_id"))


def off_by(machine: Host) -> timedelta:
    """Return how far the machine's clock is from this computer's clock."""
    return datetime.fromtimestamp(float(machine.check_output("date +%s.%N")), UTC) - datetime.now(UTC)


@pytest.fixture
def no_time_server(vm: Environment) -> Iterator[None]:
    """Stop the lab's time server, so that a wrong clock stays wrong until the test starts it again."""
    world = vm.connect("world", sudo=False)
    world.check_output("systemctl stop chrony")
    yield
    world.check_output("systemctl start chrony")


@pytest.mark.parametrize("wrong", [MONTH, -MONTH], ids=["ahead", "behind"])
def test_a_clock_that_is_a_month_off_at_boot(
    vm: Environment, machine: Host, no_time_server: None, wrong: timedelta
) -> None:
    with switched_off(vm):
        qemu.set_clock(VM, datetime.now(UTC) + wrong)
    host = connect(vm)
    host.run("systemctl is-system-running --wait")
    # systemd moves a clock that is behind to the last time that it knows (systemd-timesyncd.service(8)).
    assert abs(off_by(host) - max(wrong, timedelta())) < timedelta(hours=2)
    with under_load(vm) as running:
        wait_for_answers(running)
        host.check_output("stackctl backup")
        vm.connect("world", sudo=False).check_output("systemctl start chrony")
        host.check_output("systemctl restart systemd-timesyncd")
        deadline = time.monotonic() + 120
        while abs(off_by(host)) > timedelta(seconds=2):
            assert time.monotonic() < deadline, f"the clock is still off by {off_by(host)}"
            time.sleep(1)
        wait_for_answers(running)
    assert not lost_rows(vm, running)
    qemu.set_clock(VM, None)
    host = wait_until_well(vm)
    host.check_output("stackctl backup")
    host.check_output(f"stackctl release {another(host)}")
    wait_until_well(vm)


@pytest.mark.parametrize("mib", [4096, 1024])
def test_a_resized_machine_serves_and_converges(vm: Environment, machine: Host, mib: int) -> None:
    """With less memory than declared, the site serves, and a converge says what does not fit."""
    with switched_off(vm):
        qemu.resize(VM, mib)
    try:
        host = wait_until_well(vm)
        assert mib * 0.85 < int(host.check_output("free --mebi | awk '/^Mem/ { print $2 }'")) <= mib
        with under_load(vm) as running:
            wait_for_answers(running)
        assert not lost_rows(vm, running)
        if mib > qemu.MEMORY_MIB:
            assert converge.changed(converge.site(environment=vm.name)) == set()
        else:
            assert "resize the droplet" in converge.failing_site(environment=vm.name)
    finally:
        with switched_off(vm):
            qemu.resize(VM, qemu.MEMORY_MIB)
    wait_until_well(vm)


def test_the_reboot_that_a_kernel_asks_for_waits_for_a_release(vm: Environment, machine: Host) -> None:
    """Installing a kernel asks for a reboot, as Debian's packages do. The reboot boots the kernel on the disk."""
    new, before = another(machine), boot_id(machine)
    machine.check_output("dpkg-reconfigure --frontend noninteractive linux-image-$(uname -r)")
    assert machine.file("/run/reboot-required").exists
    asked = Run(("release", new))
    asked.reach("start")
    was = machines.first_process(VM)
    machine.run(f"systemctl start --no-block {vm.settings.paths.units.reboot_service}")
    assert asked.end() == 0
    machines.wait_for_reboot(VM, was)
    host = wait_until_well(vm)
    assert boot_id(host) != before
    assert live(host) == new
    assert not host.file("/run/reboot-required").exists
