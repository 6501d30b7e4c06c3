"""After a reboot or a crash, all checks pass, no container is recreated, and committed rows are still there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab.demo import deliver_an_update
from tests.lab.layout import Machine, by_name
from tests.support import converge
from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")

CONTAINERS = "docker ps --no-trunc --format '{{.Names}} {{.ID}}' | sort"


def offers(lab: Environment, droplet: Host, title: str) -> str:
    return lab.ask_app_tables(droplet, f"SELECT count(*) FROM offers WHERE title = '{title}'")  # noqa: S608 - our own


@contextmanager
def registry_out_of_reach(lab: Environment) -> Iterator[None]:
    world = lab.connect("world", sudo=False)
    world.check_output("systemctl stop docker-registry")
    try:
        yield
    finally:
        world.check_output("systemctl start docker-registry")


def boots_with_all_that_was_there(lab: Environment, droplet: Host, fault: Callable[[Machine], None]) -> Host:
    """Return the droplet after the reboot or crash.

    The registry is down, so the droplet cannot pull or recreate anything.
    """
    title = f"Bread of the {fault.__name__} {time.time_ns()}"
    deliver_an_update(f"/offer 3.50 {title}")
    assert offers(lab, droplet, title) == "1"
    before = droplet.check_output(CONTAINERS)
    with registry_out_of_reach(lab):
        fault(by_name("droplet1"))
        after = lab.reconnect("droplet1")
        after.check_output("systemctl is-system-running --wait")
        assert after.run("stackctl status").rc == 0
    assert after.check_output(CONTAINERS) == before
    assert offers(lab, after, title) == "1"
    assert converge.planned() == set()
    return after


def test_a_crash_takes_nothing_away(lab: Environment, droplet: Host) -> None:
    boots_with_all_that_was_there(lab, droplet, machines.crash)


def test_a_reboot_is_in_order_and_every_check_passes_after_it(lab: Environment, droplet: Host) -> None:
    after = boots_with_all_that_was_there(lab, droplet, machines.reboot)
    postgres = lab.settings.paths.docker.data_container("postgres")
    log = after.run(f"docker logs --tail 60 {postgres} 2>&1").stdout
    assert "received fast shutdown request" in log
    assert "database system is shut down" in log
    converge.checks()
