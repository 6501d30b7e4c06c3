"""A pending handler runs once. A plan shows a handler that a planned change will notify."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from deploys.facts.files import PendingHandlers
from deploys.operations.handlers import run_handler
from tests.support.operations import HANDLER, MARKER, Facts, commands


def change(*, will_change: bool) -> Any:
    return SimpleNamespace(will_change=will_change)


def test_a_pending_handler_runs_and_is_pending_no_more() -> None:
    done = commands(run_handler, {PendingHandlers: frozenset({"x"})}, handler=HANDLER, after=[])
    assert done == ["reload", f"rm -f {MARKER}"]


def test_a_handler_that_is_not_pending_does_not_run() -> None:
    changed, unchanged = change(will_change=True), change(will_change=False)
    other: Facts = {PendingHandlers: frozenset({"other"})}
    assert commands(run_handler, other, handler=HANDLER, after=[changed]) == []
    assert commands(run_handler, other, executing=False, handler=HANDLER, after=[unchanged]) == []


def test_a_plan_shows_the_reload_of_a_change_to_come() -> None:
    arguments: dict[str, Any] = {"handler": HANDLER, "after": [change(will_change=True)]}
    ran = commands(run_handler, {PendingHandlers: frozenset()}, executing=False, **arguments)
    assert ran == ["reload", f"rm -f {MARKER}"]
