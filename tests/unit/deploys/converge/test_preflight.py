"""A run stops before its first change if a droplet is unfit or locked by another run."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh import SSHConnector

from deploys.converge import session
from deploys.converge.preflight import check_droplet, check_name, overlapping
from deploys.facts.data import UNREADABLE, PostgresMajor
from deploys.facts.machine import Cpus, DebianRelease, HasAddress, HasTimeZone, MemoryMib, Networks
from deploys.facts.stackctl import WebhookHost
from deploys.operations import this_run
from deploys.terminal.exit_codes import LOCKED
from tests.support.settings import ROOT, settings_of

Facts = dict[type[FactBase[Any]], Any]

SETTINGS = settings_of("prod")  # declares 2048 MiB; Docker uses 172.30.0.0/24, 172.30.128.0/17 and 172.30.1.0/24
FIT: Facts = {
    DebianRelease: "debian 13",
    MemoryMib: 1967,
    Cpus: 1,
    HasTimeZone: True,
    PostgresMajor: 17,
    Networks: {"lo": ["127.0.0.1/8"], "eth0": ["203.0.113.7/20"], "eth1": ["10.116.0.2/20"]},
}


def check(facts: Facts) -> None:
    host = SimpleNamespace(name="prod-1", get_fact=lambda fact, **_: facts[fact])
    check_droplet(cast("Host", host), SETTINGS)


def test_a_fit_droplet_is_let_through() -> None:
    check(FIT)
    check({**FIT, PostgresMajor: None})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {PostgresMajor: 16},
            "postgres was made by PostgreSQL 16, and postgres_image postgres:17.* name an image of 16",
        ),
        (
            {PostgresMajor: UNREADABLE},
            r"no PostgreSQL version in .*postgres/PG_VERSION.* Next: sudo ls -l /.*/PG_VERSION",
        ),
        (
            {DebianRelease: "debian 12"},
            "prod-1 runs debian 12, but only Debian 13 is supported. Nothing was changed. Next: rebuild the",
        ),
        ({DebianRelease: "ubuntu 24.04"}, "prod-1 runs ubuntu 24.04"),
        (
            {Cpus: 0},
            "prod-1 has 0 CPUs, but postgres_cpus is 1.0. Nothing .* lower postgres_cpus in group_data, or resize the",
        ),
        (
            {HasTimeZone: False},
            "prod-1 has no time zone Etc/UTC. Nothing .* a name that `timedatectl list-timezones` lists",
        ),
        ({MemoryMib: 967}, "prod-1 has 967 MiB of memory, but droplet_memory_mib is 2048"),
        (
            {Networks: {"eth1": ["172.30.1.9/24"]}},
            r"prod-1 reaches 172\.30\.1\.9/24 through eth1, and app_subnet 172\.30\.1\.0/24 overlaps 172\.30\.1\.9/24",
        ),
    ],
)
def test_an_unfit_droplet_is_refused_in_one_line(change: Facts, fault: str) -> None:
    with pytest.raises(PyinfraError, match=fault) as caught:
        check({**FIT, **change})
    assert "\n" not in str(caught.value)


def test_memory_may_lack_what_the_kernel_keeps_and_no_more() -> None:
    check({**FIT, MemoryMib: 1803})
    with pytest.raises(PyinfraError, match="1802 MiB"):
        check({**FIT, MemoryMib: 1802})


@pytest.mark.parametrize(
    ("networks", "named"),
    [
        ({"eth1": ["10.116.0.2/20"]}, None),
        ({"eth1": []}, None),
        ({"docker0": ["172.30.0.1/24"], "br-1f": ["172.30.1.1/24"], "veth2": ["172.30.128.1/24"]}, None),
        ({"eth1": ["172.30.0.200/24"]}, "docker_bridge"),
        ({"eth1": ["172.30.200.1/32"]}, "docker_pool"),
        ({"eth0": ["203.0.113.7/20", "172.30.1.200/32"]}, "app_subnet"),
        ({"eth1": ["172.30.2.200/32"]}, "data_subnet"),
    ],
)
def test_another_network_in_docker_s_ranges_is_named(networks: dict[str, list[str]], named: str | None) -> None:
    found = overlapping(SETTINGS.values, networks)
    assert (found.split()[-4] if found else None) == named


def test_the_holder_of_the_lock_is_named() -> None:
    content = '{"holder": "stackctl release 1.0.0", "since": "2026-11-23T12:00:00+00:00", "id": "1"}\n'
    assert session.holder_message(content).startswith(
        "stackctl release 1.0.0 has held the lock since 2026-11-23T12:00:00+00:00"
    )


@pytest.mark.parametrize("content", ["", '{"holder": "conv'])
def test_a_lock_whose_holder_has_not_signed_yet_is_somebody_s_all_the_same(content: str) -> None:
    assert session.holder_message(content).startswith("another run has just begun")


def test_we_sign_with_who_and_where() -> None:
    assert this_run.ME.holder.startswith(f"converge by {getpass.getuser()}@")


LOCKED_BY_ANOTHER = """
from pyinfra import host, state
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.operations import server
from deploys.converge import session

HOLDER = '{"holder": "somebody", "since": "noon", "id": "1"}'
host.run_shell_command = lambda command, **_: (True, CommandOutput([OutputLine("stdout", HOLDER)]))
session._lock = lambda host: session._exit_locked(host, "lock")
state.add_callback_handler(session.SiteLock())
server.shell(name="Change it", commands=["touch changed"])
"""


def test_a_run_that_found_a_lock_taken_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    """The test runs pyinfra itself, because `make rotate` depends on its exit code."""
    (tmp_path / "deploy.py").write_text(LOCKED_BY_ANOTHER)
    command = [sys.executable, "-m", "pyinfra", "-y", "@local", "deploy.py"]
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True, check=False)
    assert ran.returncode == LOCKED
    assert "is locked: somebody has held the lock since noon" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "changed").exists()


def test_facts_are_not_printed_even_in_a_verbose_run() -> None:
    """Facts contain unsalted hashes. `FileState` hashes files with secrets, and `RedisUsers` hashes passwords."""
    state: Any = SimpleNamespace(print_fact_output=True, callback_handlers=[session.SiteLock()])
    connector: Any = SSHConnector.__new__(SSHConnector)
    connector.client = SimpleNamespace(get_transport=lambda: SimpleNamespace(sock=None))
    session.begin(state, cast("Host", SimpleNamespace(name="one", connector=connector, groups=["prod"])))
    assert state.print_fact_output is False


def test_each_host_is_locked_once_and_all_before_the_first_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """All hosts are locked first even with --serial and --no-wait, which make pyinfra call the hook once per host."""
    taken: list[str] = []
    monkeypatch.setattr(session.SiteLock, "_held", {})
    monkeypatch.setattr(session, "_lock", lambda host: taken.append(host.name))
    hosts = [SimpleNamespace(name="one"), SimpleNamespace(name="two")]
    state: Any = SimpleNamespace(inventory=SimpleNamespace(get_active_hosts=lambda: hosts))
    session.SiteLock.operation_host_start(state, cast("Host", hosts[1]), "hash")
    assert taken == ["two"]
    for _ in range(2):
        session.SiteLock.operation_start(state, "hash")
    assert taken == ["two", "one"]


def named(told: str | None, *, has_address: bool, isolated: bool = False, webhook: str | None = "/webhook") -> None:
    facts: Facts = {WebhookHost: told, HasAddress: has_address}
    host = SimpleNamespace(name="prod-1", get_fact=lambda fact, **_: facts[fact])
    settings = settings_of("prod", {"webhook_path": webhook, "public_paths": ["/webhook"]})
    check_name(cast("Host", host), replace(settings, isolated=isolated))


def test_a_webhook_needs_a_name_in_dns() -> None:
    own = settings_of("prod").values.domain
    with pytest.raises(PyinfraError, match=f"from old.dev to {own}: DNS has no address for {own}. Nothing was changed"):
        named("old.dev", has_address=False)


def test_a_name_in_use_or_a_resolver_that_is_down_stops_no_converge() -> None:
    """A converge goes on without DNS.

    The component `certificate`, the last of the converge, reports a missing name or a failed resolver.
    """
    named(settings_of("prod").values.domain, has_address=False)
    named(None, has_address=False)
    named("old.dev", has_address=True)
    named("old.dev", has_address=False, isolated=True)
    named("old.dev", has_address=False, webhook=None)


@pytest.mark.parametrize(
    ("state", "host"),
    [
        ('{"webhook": {"url": "https://bot.dev/webhook/telegram", "fingerprint": "x"}}', "bot.dev"),
        ('{"webhook": null}', None),
        ("", None),
        ("{", None),
        ("[]", None),
    ],
)
def test_where_telegram_sends_updates_is_read_from_the_state(state: str, host: str | None) -> None:
    assert WebhookHost().process(state.splitlines()) == host


def test_a_name_is_looked_up_as_the_droplet_does() -> None:
    for name, known in (("localhost", True), ("no-such-name.invalid", False)):
        ran = subprocess.run(["sh", "-c", str(HasAddress().command(name))], capture_output=True, text=True, check=False)
        assert HasAddress().process(ran.stdout.splitlines()) is known
