"""The containers that served before the flip finish their requests before they end."""

from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.stack import DRAIN_SECONDS, Stack
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.fakes.kills import killed_at_its_watch


def ends_after_the_flip(droplet: Droplet, monkeypatch: pytest.MonkeyPatch, *verb: str) -> float:
    """Return the seconds from the last flip until the colour that served before it ended."""
    flipped, ended = list[float](), list[float]()
    activate, stop = state.activate, Stack.stop_colour

    def flips(paths: Any, colour: str) -> None:
        activate(paths, colour)
        flipped.append(droplet.seconds)
        ended.clear()

    def stops(stack: Stack, colour: str) -> None:
        if any(container["state"] == "running" for container in droplet.docker.of(f"bot-{colour}")):
            ended.append(droplet.seconds)
        stop(stack, colour)

    monkeypatch.setattr(state, "activate", flips)
    monkeypatch.setattr(Stack, "stop_colour", stops)
    stackctl(droplet, *verb)
    return ended[0] - flipped[-1]


def test_the_old_colour_ends_a_second_after_the_flip_at_the_earliest(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immediate SIGTERM would reset connections in the backlog.

    A rollback has no watch, so the rollback waits a second.
    """
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert DRAIN_SECONDS == 1.0
    assert 1.0 <= ends_after_the_flip(live, monkeypatch, "rollback") < 3.0


def test_a_watch_is_long_enough_to_drain(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 3.0 <= ends_after_the_flip(live, monkeypatch, "release", "1.1.0") < 4.5


def test_so_does_one_that_is_flipped_back(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    live.later = {"ready": 503}
    assert ends_after_the_flip(live, monkeypatch, "release", "1.1.0") >= 1.0


@pytest.mark.parametrize("verb", ["boot", "rollback"])
def test_so_does_what_a_killed_release_left(live: Droplet, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    left = killed_at_its_watch(live, "1.1.0")
    assert ends_after_the_flip(left, monkeypatch, verb) >= 1.0
