"""The power fails: QEMU is killed. What the kernel had not yet written to the disk is lost.

Every update that the bot had acknowledged is there afterwards, and the site comes back by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from stackctl.release.release import STEPS
from tests.support.environment import Environment
from tests.system.vm.machine import (
    Run,
    another,
    connect,
    cut_power,
    live,
    lost_rows,
    under_load,
    wait_for_answers,
    wait_until_well,
)

Show = Callable[[str], None]


def test_a_power_cut_under_load_loses_no_acknowledged_row(vm: Environment, show: Show) -> None:
    with under_load(vm) as running:
        time.sleep(5)
        running.phase("power cut")
        cut_power()
        took = wait_for_answers(running)
    show(f"the bot answers {took:.0f} s after the login works\n{running.tally.table()}")
    assert not lost_rows(vm, running)
    wait_until_well(vm)


def test_a_database_that_promises_less_loses_rows(vm: Environment, show: Show) -> None:
    """Control: without fsync, the rows are only in the kernel's memory when the power fails."""
    host = connect(vm)
    lazy = {"fsync": "off", "synchronous_commit": "off", "wal_writer_delay": "'10s'"}
    superuser = f"{vm.psql.replace(f'-d {vm.settings.values.database}', '-d postgres')} -c"
    for name, value in lazy.items():
        host.check_output(f'{superuser} "ALTER SYSTEM SET {name} = {value}"')
    host.check_output(f'{superuser} "SELECT pg_reload_conf()"')
    try:
        with under_load(vm) as running:
            time.sleep(5)
            running.phase("power cut")
            cut_power()
            wait_for_answers(running)
        gone = lost_rows(vm, running)
    finally:
        host = connect(vm)
        for name in lazy:
            host.check_output(f'{superuser} "ALTER SYSTEM RESET {name}"')
        host.check_output(f'{superuser} "SELECT pg_reload_conf()"')
    show(f"without fsync, {len(gone)} of {len(running.tally.requests)} updates are gone")
    assert gone
    wait_until_well(vm)


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_a_power_cut_during_a_release_leaves_one_release_that_serves(vm: Environment, show: Show, step: str) -> None:
    before = connect(vm)
    old, new = live(before), another(before)
    with under_load(vm) as running:
        asked = Run(("release", new))
        asked.reach(step)
        running.phase("power cut")
        cut_power()
        asked.abandon()
        took = wait_for_answers(running)
    host = wait_until_well(vm)
    came_up = live(host)
    show(f"power cut at {step}: {came_up} came up, answers {took:.0f} s after the login works")
    assert not lost_rows(vm, running)
    assert came_up in {old, new}
    names = host.check_output("docker ps --format '{{.Names}}'").split()
    assert len([name for name in names if "-web-" in name]) == 1
    assert not host.check_output("ls /opt/backups | grep partial || true")
