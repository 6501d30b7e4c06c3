"""A release that is interrupted or killed at any moment can be finished."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.state import State
from stackctl.cli import main
from stackctl.core.program import Result
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import killed, kills
from tests.support.releases import assert_one_colour_serves, ids, remembered, running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_undoes_a_release_and_more_signals_do_not_stop_the_undo(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal undoes the release, for example the signal that systemd sends at a shutdown.

    Further signals do not stop the undo.
    """
    before, sent = (remembered(live), ids(live), running(live)), list[str]()
    run = Droplet.run

    def signalled(droplet: Droplet, argv: Sequence[str], *rest: Any, **named: Any) -> Result:
        line = " ".join(argv)
        if "bot-green" in line and " up " in line and not sent:
            sent.append("first")
            os.kill(os.getpid(), number)
        elif sent and line.startswith(("docker stop", "docker rm")):
            sent.append("again")
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        return run(droplet, argv, *rest, **named)

    monkeypatch.setattr(Droplet, "run", signalled)
    former = {known: signal.signal(known, main._interrupt) for known in (signal.SIGTERM, signal.SIGINT)}
    try:
        live.docker.publish("1.1.0")
        code, shown = stackctl(live, "release", "1.1.0")
    finally:
        for known, handler in former.items():
            signal.signal(known, handler)
    assert (code, "interrupted. 1.0.0 is still live" in shown.splitlines()[-1]) == (1, True), shown
    assert {*sent} == {"first", "again"}
    assert before == (remembered(live), ids(live), running(live))


def test_signals_are_ignored_before_the_last_step_is_undone(live: Droplet) -> None:
    live.app = {"ready": 200, "update": 500}
    assert stackctl(live, "release", "1.1.0")[0] == 1
    calls = [" ".join(call) for call in live.calls]
    removals = [at for at, call in enumerate(calls) if call.startswith("docker rm ")]
    assert calls.index("ignore_signals") < removals[-1]


def test_a_release_killed_at_any_moment_serves_boots_and_can_be_finished(tmp_path: Path) -> None:
    """stackctl is killed at each call and event in turn. The kill leaves real files."""
    served = list[str]()
    fresh = installed(tmp_path / "droplet")
    stackctl(fresh, "release", "1.0.0")
    for at, left in kills(fresh, "release", "1.1.0"):
        current = state.load(left.paths)
        served.append(current.active or "")
        assert current.active in left.docker.running()
        assert current.release
        assert current.release.tag == ("1.0.0" if current.active == "blue" else "1.1.0")
        if at % 2:  # every second time, the machine is reset between the kill and the next attempt
            left.reset()
            assert stackctl(left, "boot")[0] == 0
            assert_one_colour_serves(left)
        code, shown = stackctl(left, "release", "1.1.0")
        assert code == 0, (at, shown)
        assert_one_colour_serves(left)
        assert not any(container["one_off"] for container in left.docker.containers)
        assert state.load(left.paths).release
    assert served == sorted(served)
    assert {"blue", "green"} == set(served)


@pytest.mark.parametrize("at", [30, 150])
def test_a_copied_moment_equals_what_a_real_kill_leaves(tmp_path: Path, at: int) -> None:
    """`kills`, which copies files, must show the same state as `killed`, which kills stackctl."""

    def seen(left: Droplet) -> tuple[dict[str, object], dict[str, bytes], State]:
        known = vars(left).keys() - {"paths", "killed_at", "moments_kept", "calls", "storage"}
        files = {
            str(path.relative_to(left.paths.home.parent)): path.read_bytes()
            for path in left.paths.home.parent.rglob("*")
            if path.is_file() and path.name not in {"droplet.pickle", "lock", "work"}
        }
        return {name: getattr(left, name) for name in known}, files, state.load(left.paths)

    really = killed(released(tmp_path / "1/droplet"), at, "release", "1.1.0")
    assert really
    copied = next(left for moment, left in kills(released(tmp_path / "2/droplet"), "release", "1.1.0") if moment == at)
    one, other = seen(really), seen(copied)
    assert one[0] == other[0]
    assert one[2] == other[2]
    assert {name: content.replace(b"/1/droplet", b"/2/droplet") for name, content in one[1].items()} == other[1]


def released(root: Path) -> Droplet:
    droplet = installed(root)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    return droplet


def test_a_refused_release_recovers_the_recorded_one_after_any_kill(tmp_path: Path) -> None:
    codes = list[int]()
    fresh = installed(tmp_path / "droplet")
    stackctl(fresh, "release", "1.0.0")
    for at, left in kills(fresh, "release", "1.1.0", every=2):
        left.docker.registry.clear()
        recorded, before = state.load(left.paths).kept[0].tag, running(left)
        code, shown = stackctl(left, "release", "9.9.9")
        codes.append(code)
        assert "cannot pull" in shown.splitlines()[-1], (at, shown)
        assert (code == 2) == (before == running(left)), (at, shown)
        assert_one_colour_serves(left)
        apps = [*left.docker.of(f"bot-{state.load(left.paths).active}"), *left.docker.of("bot-worker")]
        assert {container["image"][-5:] for container in apps} == {recorded}, (at, shown)
    assert {*codes} == {1, 2}


def test_a_killed_first_release_is_finished_by_the_next_one(tmp_path: Path) -> None:
    recorded: list[bool] = []
    for _, left in kills(installed(tmp_path / "droplet"), "release", "1.0.0", every=3):
        recorded.append(bool(state.load(left.paths).kept))
        assert stackctl(left, "boot")[0] == 0
        assert stackctl(left, "release", "1.0.0")[0] == 0
        assert_one_colour_serves(left)
    assert len(recorded) > 30
    assert {*recorded} == {False, True}
