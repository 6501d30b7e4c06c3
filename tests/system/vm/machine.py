"""What the tests of the virtual machine share: its power, its runs of stackctl, and its health."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from testinfra.host import Host

from tests.lab import machine
from tests.lab.layout import VM
from tests.support.environment import ROOT, Environment, status
from tests.support.load import Running, lab_target, load

WITHIN_S = 900.0
"""The longest wait for a boot, a release or a restore. An emulated processor is about fifteen times slower."""
CLIENTS, RATE = 2, 4.0


def connect(vm: Environment) -> Host:
    """Connect again, because the machine may have been switched off."""
    return vm.reconnect(VM.name)


def cut_power() -> None:
    """Kill QEMU. What the machine's kernel has not written to the disk is lost. Then switch the machine on again."""
    machine.crash(VM)


@contextmanager
def switched_off(vm: Environment) -> Iterator[None]:
    """Shut the machine down for a change of its hardware, then boot it."""
    connect(vm).run("sync")
    machine.stop(VM)
    try:
        yield
    finally:
        machine.start(VM)


def wait_until_well(vm: Environment, seconds: float = WITHIN_S) -> Host:
    """Wait until nothing is left to be started, and `stackctl status` shows no problem. Return a new connection."""
    deadline = time.monotonic() + seconds
    host = connect(vm)
    host.run("systemctl is-system-running --wait")
    while found := problems(host):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s: {found}"
        time.sleep(2)
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
    return host


def problems(host: Host) -> list[str]:
    """Return the problems in `stackctl status`, or one problem if it says nothing."""
    ran = host.run("stackctl status --json")
    try:
        return list(json.loads(ran.stdout)["problems"])
    except ValueError:
        return [f"stackctl status: exit {ran.rc}: {ran.stderr}"]


def live(host: Host) -> str:
    return str(status(host)["release"]["tag"])


def another(host: Host) -> str:
    return "1.1.0" if live(host) == "1.0.0" else "1.0.0"


@dataclass
class Run:
    """A run of stackctl that was just started. Its events arrive over SSH."""

    arguments: tuple[str, ...]
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = ["ssh", "-F", ".lab/ssh_config", VM.name, "sudo", "stackctl", *self.arguments, "--json"]
        self._client = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def reach(self, step: str) -> None:
        """Return as soon as this step has begun."""
        for event in self._read():
            if (event.get("step"), event.get("state")) == (step, "start"):
                return
        raise AssertionError(f"the run ended before {step}: {self.events[-3:]}")

    def end(self) -> int:
        """Return the exit code."""
        for _ in self._read():
            pass
        return self._client.wait(timeout=WITHIN_S)

    def abandon(self) -> None:
        """Close the connection, whose machine has lost its power."""
        self._client.kill()
        self._client.wait()

    def _read(self) -> Iterator[dict[str, Any]]:
        assert self._client.stdout
        for line in self._client.stdout:
            event = json.loads(line) if line.startswith("{") else {"text": line}
            self.events.append(event)
            yield event


@contextmanager
def under_load(vm: Environment) -> Iterator[Running]:
    """Send updates to the bot, as Telegram does, until the context ends. At its beginning, the bot answers."""
    with load(lab_target(vm), clients=CLIENTS, rate=RATE) as running:
        wait_for_answers(running)
        running.phase("before")
        running.until(len(running.tally.requests) + 10)
        yield running


def wait_for_answers(running: Running, seconds: float = WITHIN_S) -> float:
    """Wait until the bot accepts a new update. Return the seconds."""
    since, began = time.time(), time.monotonic()
    while not any(one.began > since and not one.lost for one in running.tally.requests[-50:]):
        assert time.monotonic() - began < seconds, "the bot does not answer again"
        time.sleep(0.2)
    return time.monotonic() - began


def lost_rows(vm: Environment, running: Running) -> set[int]:
    """Return the updates that the bot has acknowledged, but that PostgreSQL does not have."""
    host = connect(vm)
    there = set(map(int, vm.ask_app_tables(host, "SELECT update_id FROM seen_updates").split()))
    return {one.update_id for one in running.tally.requests if not one.lost} - there
