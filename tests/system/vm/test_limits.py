"""Memory and processes run out in a container, in PostgreSQL or on the host, and the kernel ends what took them.

The site comes back by itself, and no acknowledged row is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from testinfra.host import Host

from tests.support.environment import Environment
from tests.system.vm.machine import lost_rows, under_load, wait_for_answers, wait_until_well

KILLED = 137
"""128 + SIGKILL."""
BOT = "/opt/bot/bin/python"
HOG = """python3 -c 'x = b"x" * ({mib} << 20); import time; time.sleep({seconds})'"""
Show = Callable[[str], None]


def web(machine: Host) -> str:
    """Return the ID of the live web container."""
    return str(machine.check_output("docker ps --quiet --no-trunc --filter name=-web-"))


def kills(machine: Host, container: str) -> int:
    """Return how many processes the kernel has killed in a container, because its memory was at the limit."""
    events = machine.check_output(f"cat /sys/fs/cgroup/system.slice/docker-{container}.scope/memory.events")
    return int(dict(line.split() for line in events.splitlines())["oom_kill"])


def test_the_bot_that_takes_too_much_memory_is_killed(vm: Environment, machine: Host, show: Show) -> None:
    container = web(machine)
    before = kills(machine, container)
    with under_load(vm) as running:
        running.phase("out of memory")
        ended = machine.run(f"docker exec {container} {BOT} -c 'b\"x\" * (400 << 20)'")
        wait_for_answers(running)
    show(running.tally.table())
    assert ended.rc == KILLED
    assert kills(machine, container) > before
    assert not lost_rows(vm, running)
    wait_until_well(vm)


def test_a_process_within_the_limit_lives(machine: Host) -> None:
    """Control: the same program with little memory is not killed."""
    assert machine.run(f"docker exec {web(machine)} {BOT} -c 'b\"x\" * (10 << 20)'").rc == 0


def test_postgres_that_takes_too_much_memory_recovers(vm: Environment, machine: Host, show: Show) -> None:
    """The kernel kills a backend. PostgreSQL then ends all sessions, and recovers from its write-ahead log."""
    with under_load(vm) as running:
        running.phase("out of memory")
        greedy = "SELECT length(string_agg(repeat(n::text, 1000000), '')) FROM generate_series(1000, 1200) n"
        ended = machine.run(f'{vm.psql} -c "{greedy}"')
        wait_for_answers(running)
    show(f"{ended.stderr.strip().splitlines()[0]}\n{running.tally.table()}")
    assert ended.rc == 2, "psql lost no connection"
    assert "server closed the connection unexpectedly" in ended.stderr
    assert not lost_rows(vm, running)
    wait_until_well(vm)


def test_a_container_that_starts_too_many_processes_is_refused_more(vm: Environment, machine: Host) -> None:
    """Afterwards, the container's PID 1 has reaped the ended processes, so that new processes can start."""
    started = "for n in $(seq 300); do sleep 5 & done; echo started"
    bomb = machine.run(f"docker exec {web(machine)} bash -c '{started}'")
    assert "Resource temporarily unavailable" in bomb.stderr
    time.sleep(10)
    assert machine.run(f"docker exec {web(machine)} true").rc == 0
    wait_until_well(vm)


def test_a_program_on_the_host_that_takes_all_memory_is_killed_and_not_the_site(
    vm: Environment, machine: Host, show: Show
) -> None:
    ids = "systemctl show --property=MainPID --value docker.service ssh.service nginx.service containerd.service"
    before = machine.check_output(ids).split()
    with under_load(vm) as running:
        running.phase("out of memory")
        ended = machine.run(HOG.format(mib=4096, seconds=1))
        wait_for_answers(running)
    show(f"{machine.check_output('dmesg | grep -i killed.process').splitlines()[-1]}\n{running.tally.table()}")
    assert ended.rc == KILLED
    assert machine.check_output(ids).split() == before
    assert not lost_rows(vm, running)
    wait_until_well(vm)


def test_many_small_programs_that_take_all_memory_leave_a_site_that_comes_back(
    vm: Environment, machine: Host, show: Show
) -> None:
    """The kernel kills the largest processes first, which may be those of the site."""
    with under_load(vm) as running:
        running.phase("out of memory")
        machine.run(f"for n in $(seq 40); do {HOG.format(mib=60, seconds=20)} & done; wait")
        wait_for_answers(running)
    said = machine.check_output("dmesg | grep -io 'killed process .*([^)]*)' | cut -d' ' -f4- | sort | uniq -c")
    show(f"killed since the boot: {said}\n{running.tally.table()}")
    assert not lost_rows(vm, running)
    wait_until_well(vm)
