"""PostgreSQL, Redis or the machine is killed during many writes. Afterwards, no acknowledged data is missing.

The lab kills a machine by killing its processes. Unlike after a power cut, the kernel still writes the data that the
processes gave it. The tests therefore notice data that a process had not yet given to the kernel, but do not notice a
missing fsync. tests/system/vm/test_power.py notices a missing fsync.

Redis promises less. With snapshots, Redis keeps the data of the last snapshot. With an append-only file, Redis loses at
most the last second.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from testinfra.host import Host

from tests.lab import machine
from tests.support import converge
from tests.support.data import connected, problems
from tests.support.environment import ROOT, Environment
from tests.support.load import Running, lab_target, load
from tests.support.under_way import DROPLET

pytestmark = pytest.mark.group("data")

WRITER = Path(__file__).parent / "write_to_redis.py"
AGAIN_WITHIN_S = 120
# Redis syncs once a second. A late fsync may delay the next fsync.
APPENDED_WITHIN_S = 2.0


def killed(droplet: Host, lab: Environment, service: str) -> None:
    """Kill a service with SIGKILL from outside its container, so that Docker applies the restart policy."""
    container = lab.settings.paths.docker.data_container(service)
    pid = droplet.check_output(f"docker inspect --format '{{{{.State.Pid}}}}' {container}")
    machine.inside(DROPLET, "kill", "-KILL", pid)


def postgres(droplet: Host, lab: Environment) -> None:
    killed(droplet, lab, "postgres")


def redis(droplet: Host, lab: Environment) -> None:
    killed(droplet, lab, "redis")


def the_machine(_droplet: Host, _lab: Environment) -> None:
    """Kill all processes of the machine. The kernel's page cache survives."""
    machine.crash(DROPLET)


Fault = Callable[[Host, Environment], None]


def wait_for_answers(running: Running) -> None:
    """Wait until the bot accepts a new update."""
    since, deadline = time.time(), time.monotonic() + AGAIN_WITHIN_S
    while not any(one.began > since and not one.lost for one in running.tally.requests[-100:]):
        assert time.monotonic() < deadline, "the bot does not answer again"
        time.sleep(0.2)


def under_load(lab: Environment, fault: Fault) -> tuple[Running, set[int]]:
    """Cause the fault under load. Return the load, and the updates that were answered but had no effect."""
    droplet, _ = connected(lab)
    with load(lab_target(lab), clients=8, rate=60.0) as running:
        time.sleep(3)
        running.phase("killed")
        fault(droplet, lab)
        wait_for_answers(running)
        running.phase("after")
        time.sleep(2)
    _, database = connected(lab)
    there = {int(line) for line in database.ask("SELECT update_id FROM seen_updates").splitlines()}
    return running, {one.update_id for one in running.tally.requests if not one.lost} - there


def assert_well(lab: Environment) -> None:
    droplet, _ = connected(lab)
    deadline = time.monotonic() + AGAIN_WITHIN_S
    while found := problems(droplet):
        assert time.monotonic() < deadline, found
        time.sleep(1)


@pytest.mark.parametrize("fault", [postgres, redis, the_machine])
def test_every_update_that_was_answered_is_there(lab: Environment, show: Callable[[str], None], fault: Fault) -> None:
    running, gone = under_load(lab, fault)
    show(f"{fault.__name__} killed:\n{running.tally.table()}")
    assert running.tally.of("after").requests
    assert gone == set()
    assert_well(lab)


@pytest.mark.parametrize("fault", [postgres, the_machine])
def test_a_database_that_promises_less_would_be_noticed(
    lab: Environment, show: Callable[[str], None], fault: Fault
) -> None:
    """Control: a database that answers before it writes loses updates."""
    _, database = connected(lab)
    lazy = {"synchronous_commit": "off", "wal_writer_delay": "'10s'", "wal_writer_flush_after": "'1GB'"}
    for name, value in lazy.items():
        database.ask(f"ALTER SYSTEM SET {name} = {value}", "postgres")
    database.ask("SELECT pg_reload_conf()", "postgres")
    try:
        running, gone = under_load(lab, fault)
    finally:
        _, database = connected(lab)
        for name in lazy:
            database.ask(f"ALTER SYSTEM RESET {name}", "postgres")
        database.ask("SELECT pg_reload_conf()", "postgres")
    sent = len(running.tally.requests)
    show(f"{fault.__name__} killed, with synchronous_commit off: {len(gone)} of {sent} updates are gone")
    assert gone
    assert_well(lab)


# Redis


class Written(NamedTuple):
    """A key that Redis acknowledged. `at` is the time since the droplet's boot."""

    number: int
    at: float


@contextmanager
def writing(lab: Environment, prefix: str) -> Iterator[list[Written]]:
    """Write keys to Redis until Redis is killed."""
    address = lab.settings.values.data_addresses["redis"]
    program = shlex.join(["sudo", "python3", "-u", "-c", WRITER.read_text(), str(address), prefix])
    command = ["ssh", "-F", ".lab/ssh_config", DROPLET.name, program]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write(lab.settings.credentials.redis_password)
        writer.stdin.close()
        written: list[Written] = []

        def listen() -> None:
            assert writer.stdout
            for line in writer.stdout:
                number, at = line.split()
                written.append(Written(int(number), float(at)))

        listener = threading.Thread(target=listen)
        listener.start()
        while len(written) < 200:
            assert writer.poll() is None, "the writer ended before the fault"
            time.sleep(0.1)
        yield written
        writer.wait(timeout=60)
        listener.join()


def kept(droplet: Host, lab: Environment, prefix: str) -> set[int]:
    """Return the numbers of the keys that Redis has."""
    keys = lab.ask_redis(droplet, f'--scan --pattern "{prefix}:*"').split()
    return {int(key.partition(":")[2]) for key in keys}


@pytest.fixture(scope="module")
def append_only(lab: Environment) -> Iterator[None]:
    """Turn the append-only file on for the test, and turn it off afterwards. Neither change loses a key of Redis."""
    for mode in ("true", "false"):
        droplet, _ = connected(lab)
        keys = [f"before-{mode}:{number}" for number in range(20)]
        lab.ask_redis(droplet, f"mset {' 1 '.join(keys)} 1")
        converge.site("--data", f"redis_append_only={mode}")
        assert lab.ask_redis(droplet, "config get appendonly").split()[1] == ("yes" if mode == "true" else "no")
        assert lab.ask_redis(droplet, f"exists {' '.join(keys)}") == "20"
        lab.ask_redis(droplet, f"del {' '.join(keys)}")
        if mode == "true":
            yield


@pytest.mark.parametrize("fault", [redis, the_machine])
def test_redis_keeps_what_its_last_snapshot_had(lab: Environment, show: Callable[[str], None], fault: Fault) -> None:
    droplet, _ = connected(lab)
    prefix = f"snapshots-{time.time_ns()}"
    with writing(lab, prefix) as written:
        saved = lab.ask_redis(droplet, "lastsave")
        had = len(written)
        lab.ask_redis(droplet, "bgsave")
        while lab.ask_redis(droplet, "lastsave") == saved:
            time.sleep(0.2)
        time.sleep(1)
        fault(droplet, lab)
    droplet, _ = connected(lab)
    assert_well(lab)
    there = kept(droplet, lab, prefix)
    lost = [one.number for one in written if one.number not in there]
    show(f"{fault.__name__} killed: {len(lost)} of {len(written)} keys lost, all written since the snapshot")
    assert {one.number for one in written[:had]} <= there
    assert lost, "Redis has keys that its snapshot cannot have, so it started from another file"


@pytest.mark.usefixtures("append_only")
@pytest.mark.parametrize("fault", [redis, the_machine])
def test_with_an_append_only_file_redis_has_all_but_the_last_moment(
    lab: Environment, show: Callable[[str], None], fault: Fault
) -> None:
    droplet, _ = connected(lab)
    prefix = f"appended-{time.time_ns()}"
    with writing(lab, prefix) as written:
        time.sleep(1)
        fault(droplet, lab)
    droplet, _ = connected(lab)
    assert_well(lab)
    there = kept(droplet, lab, prefix)
    lost = [one for one in written if one.number not in there]
    show(f"{fault.__name__} killed: {len(lost)} of {len(written)} keys lost")
    assert all(written[-1].at - one.at <= APPENDED_WITHIN_S for one in lost)


@pytest.mark.usefixtures("append_only")
def test_an_append_only_file_doesn_t_overrule_a_restore(lab: Environment) -> None:
    """If an append-only file exists, Redis starts only from that file.

    A restore must remove the append-only file, because that file has the replaced data.
    """
    droplet, _ = connected(lab)
    lab.ask_redis(droplet, "set restored then")
    droplet.check_output("stackctl backup")
    lab.ask_redis(droplet, "set restored now")
    wanted = droplet.check_output("stackctl list-backups | awk '$2 == \"asked\" { print $1; exit }'")
    droplet.check_output(f"stackctl restore {wanted} --yes {wanted}")
    assert lab.ask_redis(droplet, "get restored") == "then"
    killed(droplet, lab, "redis")
    assert_well(lab)
    assert lab.ask_redis(droplet, "get restored") == "then", "after a restart, Redis lost the restored value"
