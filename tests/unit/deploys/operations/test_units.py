"""systemd loads the declared units, and restarts the units that run."""

from __future__ import annotations

from typing import Any

import pytest

from deploys.facts.files import FileState, PendingHandlers
from deploys.operations.units import systemd_units
from tests.support.operations import CONTENT, MARKER, PLACED, commands

UNIT: dict[str, Any] = {"units": {"x.service": CONTENT}, "handler": "x", "restart": ["x.service", "[y].service"]}
UNIT_PLACED = {**PLACED, "mode": "644"}
READ = ["systemctl daemon-reload", "systemctl try-restart x.service '[y].service'", f"rm -f {MARKER}"]


def test_units_that_systemd_has_read_are_left_alone() -> None:
    assert commands(systemd_units, {FileState: UNIT_PLACED, PendingHandlers: frozenset({"other"})}, **UNIT) == []


@pytest.mark.parametrize("executing", [False, True])
def test_a_unit_that_differs_is_read_and_restarted_if_it_runs(*, executing: bool) -> None:
    notify, write, *read = commands(
        systemd_units, {FileState: None, PendingHandlers: frozenset()}, executing=executing, **UNIT
    )
    assert notify == f"install -D -m 600 /dev/null {MARKER}"
    assert write.endswith("mv -fT /etc/systemd/system/x.service.new /etc/systemd/system/x.service")
    assert read == READ


def test_a_unit_that_systemd_has_yet_to_read_is_read() -> None:
    assert commands(systemd_units, {FileState: UNIT_PLACED, PendingHandlers: frozenset({"x"})}, **UNIT) == READ


def test_a_service_is_placed_before_the_socket_or_timer_that_starts_it() -> None:
    """systemd-analyze refuses a socket without its service, so a bare droplet could not converge in another order."""
    units = {"x.socket": CONTENT, "x.timer": CONTENT, "x.service": CONTENT}
    ran = commands(systemd_units, {FileState: None, PendingHandlers: frozenset()}, units=units, handler="x")
    written = [command.rpartition("/")[2].strip() for command in ran if "mv -fT" in command]
    assert written == ["x.service", "x.socket", "x.timer"]
