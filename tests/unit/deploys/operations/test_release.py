"""A converge releases the live tag again if the running containers differ from what is declared."""

from __future__ import annotations

from typing import Any

import pytest

from deploys.facts.stackctl import Status
from deploys.operations.release import current_release
from stackctl.services.compose import stack_sha256
from tests.support.operations import commands

MADE = stack_sha256(b"app.yaml", b"{}\n", "bot@sha256:1")


LOST = {"active": "blue", "release": None}
LINK_LOST = {"active": None, "release": None, "colours": {"blue": {"tag": "1.0.0"}, "green": None}}


def live(made_from: str = MADE, drift: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "active": "blue",
        "release": {"tag": "1.0.0", "image": "bot@sha256:1"},
        "colours": {"blue": {"containers": [{"sha256": made_from}]}},
        "worker": {"containers": [{"sha256": MADE}]},
        "drift": list(drift),
    }


def released(
    status: Any,
    compose_files: bytes = b"app.yaml",
    environment: bytes = b"{}\n",
    *,
    worker: bool = True,
    executing: bool = True,
) -> list[str]:
    declared = {"compose_files": compose_files, "environment": environment, "worker": worker}
    return commands(current_release, {Status: status}, executing=executing, **declared)


def test_a_release_as_declared_is_left_alone() -> None:
    assert released(live()) == []
    assert released({**live(), "worker": None}, worker=False) == []


def test_without_a_release_none_is_made_up() -> None:
    assert released({"active": None, "release": None, "colours": {"blue": None, "green": None}}) == []
    assert released(None, executing=False) == []


@pytest.mark.parametrize("status", [None, LOST, LINK_LOST])
def test_a_state_that_is_lost_is_not_taken_for_no_release(status: Any) -> None:
    """The converge fails with stackctl's own message."""
    assert released(status) == ["stackctl status"]


@pytest.mark.parametrize(
    "differs",
    [
        (live(drift=("web is exited",)),),
        (live(made_from="something else"),),
        ({**live(), "worker": {"containers": [{"sha256": "something else"}]}},),
        ({**live(), "worker": {"containers": []}},),
        ({**live(), "worker": None},),
        (live(), b"another app.yaml"),
        (live(), b"app.yaml", b'{"A":"1"}\n'),
    ],
)
def test_the_live_tag_is_released_again_when_anything_differs(differs: tuple[Any, ...]) -> None:
    (release,) = released(*differs)
    assert release.endswith("release 1.0.0")
