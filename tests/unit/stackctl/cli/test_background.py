"""A client follows a background run until the run ends. The client may connect at any time."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stackctl.cli import background
from stackctl.core import config, events, lock
from stackctl.core.errors import FailedError, LockedError, PersonNeededError, RefusedError
from stackctl.core.paths import Paths
from stackctl.core.program import ENVIRONMENT as ENV
from stackctl.core.program import TIMED_OUT, Result
from tests.support.fakes.droplet import Droplet, installed, stackctl

RUN = "20251123T120000.000Z"
ID, ANOTHER = "0123456789abcdef" * 2, "f" * 32


@dataclass
class Followed(Droplet):
    """A droplet on which a prepared event happens each time the follower sleeps. The unit ends after the last event."""

    coming: list[Callable[[], object]] = field(default_factory=list)
    unit: str = "active"
    """The state that systemd reports until the unit ends."""
    over: str = "inactive"
    """The state that systemd reports after the end of the unit."""
    last_words: Callable[[], object] = lambda: None
    """A function that is called after the follower's last look, just before the unit ends."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        assert self.seconds < 100, "the follower does not end"
        if self.coming:
            self.coming.pop(0)()
        else:
            self.unit = self.over

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENV,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        result = super().run(argv, env, timeout, stdin=stdin, stdout=stdout, most=most)
        if list(argv) != ["systemctl", "show", "--property=ActiveState", "--value", self.paths.units.release]:
            return result
        if self.unit == self.over:
            self.last_words()
        return result if result.code else Result(0, f"{self.unit}\n")


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(installed(tmp_path).paths)


def run_log(paths: Paths, run: str = RUN, op: str = "release") -> events.RunLog:
    return events.RunLog(paths.history, op, Droplet(paths), StringIO(), (), run)


def start(followed: Followed, *arguments: str) -> None:
    background.start(followed.paths, config.load(followed.paths), followed, arguments)


def follow(followed: Followed, run: str = RUN) -> tuple[int, list[str]]:
    """Follow a run, and return the run's exit code and messages."""
    heard: list[str] = []
    return background.follow(followed.paths, followed, run, lambda event: heard.append(event["message"])), heard


def test_a_run_is_heard_from_its_first_event_to_its_exit_code(followed: Followed) -> None:
    """The follower shows no events of earlier runs or of other runs that happen at the same time."""
    before, mine, others = run_log(followed.paths, "earlier"), run_log(followed.paths), run_log(followed.paths, "other")
    before.begin("ada", "1.0.0")
    before.end(0, "over")
    mine.begin("ada", "1.1.0")

    def both() -> None:
        mine.emit("pull", "log", "two")
        others.end(0)
        mine.emit("pull", "done", "three")

    followed.coming = [
        lambda: mine.emit("pull", "start", "one"),
        lambda: others.begin("bob"),
        both,
        lambda: mine.end(2, "no room"),
        lambda: mine.emit("pull", "start", "never heard"),
    ]
    assert follow(followed) == (2, ["1.1.0 by ada", "one", "two", "three", "no room"])
    assert len(followed.coming) == 1


def test_a_history_that_is_not_there_yet_is_waited_for(followed: Followed) -> None:
    mine = run_log(followed.paths)
    followed.coming = [lambda: None, lambda: mine.begin("ada"), lambda: mine.end(0)]
    assert follow(followed) == (0, ["by ada", ""])


def test_a_line_is_heard_when_it_is_whole(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.emit("pull", "done", "ü" * 9)
    whole = followed.paths.history.read_bytes()
    followed.paths.history.write_bytes(whole[:50])

    def write_the_rest() -> None:
        with followed.paths.history.open("ab") as file:
            file.write(whole[50:])

    followed.coming = [lambda: None, write_the_rest, lambda: mine.end(0, "end")]
    assert follow(followed) == (0, ["ü" * 9, "end"])


def test_a_torn_line_spoils_none_that_is_heard(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.emit("pull", "done", "one")

    def tear() -> None:
        with followed.paths.history.open("ab") as file:
            file.write(b'{"run": "\xff')

    followed.coming = [tear, lambda: mine.emit("start", "done", "two"), tear, lambda: mine.end(1, "end")]
    assert follow(followed) == (1, ["one", "two", "end"])


@pytest.mark.parametrize("said_before_it", [0, 1, 3])
def test_each_event_is_shown_once_even_if_the_history_is_trimmed(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, said_before_it: int
) -> None:
    """Trimming replaces the history with a shorter file, twice during this test."""
    monkeypatch.setattr(events, "MOST_LINES", 12)
    monkeypatch.setattr(events, "KEPT_LINES", 12)
    mine, others = run_log(followed.paths), run_log(followed.paths, "other", "maintenance")
    for n in range(12):
        run_log(followed.paths, "earlier").emit("pull", "done", str(n))
    mine.begin("ada", "1.1.0")

    def meanwhile() -> None:
        for n in range(said_before_it):
            mine.emit("start", "done", f"before {n}")
        others.emit("maintenance", "progress")
        events.trim(followed.paths.history)
        mine.emit("health", "done", "after")

    followed.coming = [lambda: mine.emit("pull", "done", "one"), meanwhile, meanwhile, lambda: mine.end(0, "end")]
    once = [*(f"before {n}" for n in range(said_before_it)), "after"]
    assert follow(followed) == (0, ["1.1.0 by ada", "one", *once, *once, "end"])
    assert len(followed.paths.history.read_bytes().splitlines()) == 14


def test_the_last_event_is_shown_even_if_the_unit_has_ended(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.begin("ada")
    followed.last_words = lambda: mine.end(1, "undone")
    assert follow(followed) == (1, ["by ada", "undone"])


def test_a_follower_waits_for_a_silent_run_while_its_unit_exists(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.begin("ada")
    followed.coming = [*[lambda: None] * 200, lambda: mine.end(0, "end")]
    assert follow(followed) == (0, ["by ada", "end"])
    assert followed.seconds < 60


def test_the_follower_waits_for_a_run_that_undoes_its_work(followed: Followed) -> None:
    """A stopped unit is `deactivating` until its work is undone, and the follower waits until then."""
    mine = run_log(followed.paths)
    mine.begin("ada")
    followed.unit = "deactivating"
    followed.coming = [*[lambda: None] * 200, lambda: mine.end(1, "undone")]
    assert follow(followed) == (1, ["by ada", "undone"])


def test_a_follower_waits_if_systemd_does_not_answer(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.begin("ada")
    followed.failing = {"systemctl show": Result(TIMED_OUT)}
    followed.coming = [*[lambda: None] * 200, lambda: mine.end(0, "end")]
    assert follow(followed) == (0, ["by ada", "end"])


@pytest.mark.parametrize("over", ["inactive", "failed"])
def test_a_killed_run_needs_a_person(followed: Followed, over: str) -> None:
    followed.over = over
    run_log(followed.paths, op="rollback").begin("ada", "1.0.0")
    with pytest.raises(
        PersonNeededError, match=r"was killed \(.*bot-release.service\). Next: stackctl rollback 1.0.0, which finishes"
    ):
        follow(followed)


def test_a_run_killed_before_its_first_event_needs_a_person(followed: Followed) -> None:
    with pytest.raises(PersonNeededError, match="run the same command again, which finishes the run"):
        follow(followed)


def test_the_last_run_is_the_newest_release_or_rollback(followed: Followed) -> None:
    with pytest.raises(RefusedError, match="no release or restore has run yet"):
        background.last_run(followed.paths)
    for run, op in (("1", "release"), ("2", "rollback"), ("3", "boot"), ("4", "backup"), ("5", "dry-run")):
        run_log(followed.paths, run, op).begin("ada")
        run_log(followed.paths, run, op).end(0)
    run_log(followed.paths, "1").emit("release", "start", "a step of that name")
    assert background.last_run(followed.paths) == "2"


def test_a_run_is_found_by_the_id_of_its_request(followed: Followed) -> None:
    """A run, even a dry run, is found by its request's ID, even after later runs."""
    for run, op, request in (("1", "release", ID), ("2", "dry-run", ANOTHER), ("3", "release", None)):
        run_log(followed.paths, run, op).begin("ci", "1.0.0", "", request)
        run_log(followed.paths, run, op).end(0)
    assert (background.run_of(followed.paths, ID), background.run_of(followed.paths, ANOTHER)) == ("1", "2")
    with pytest.raises(
        RefusedError, match=f"no run has the ID {'0' * 32}, so that request started nothing. Next: send"
    ):
        background.run_of(followed.paths, "0" * 32)


def test_people_see_seconds_and_machines_see_the_events(followed: Followed) -> None:
    mine = run_log(followed.paths)
    mine.begin("ada", "1.1.0")
    mine.machine.sleep(1.5)
    mine.emit_tail("start", "Traceback")
    mine.end(1, "no room")
    shown: dict[bool, str] = {}
    for as_json in (True, False):
        out = StringIO()
        assert background.follow(followed.paths, followed, RUN, background.shown(out, as_json=as_json)) == 1
        shown[as_json] = out.getvalue()
    assert shown[True] == followed.paths.history.read_text()
    assert shown[False].splitlines() == [
        "   0.0 s  release    start 1.1.0 by ada",
        "    | Traceback",
        "   1.5 s  release    failed no room (1.5 s)",
    ]


def test_a_release_is_a_unit_that_ends_before_docker_and_undoes_what_it_did(followed: Followed) -> None:
    followed.failing = {"systemd-run": Result(0)}
    start(followed, "--run", RUN, "release", "1.1.0")
    (argv,) = followed.calls
    assert "--unit=bot-release.service" in argv
    assert {"--property=KillMode=mixed", "--property=After=docker.service bot.service"} <= set(argv)
    # The undo waits for a colour (5 s), for the new worker (7 s) and for the old worker (7 s).
    assert f"--property=TimeoutStopSec={background.UNDO_SECONDS + 5 + 7 + 7}" in argv
    assert argv[-5:] == ["/usr/local/bin/stackctl", "--run", RUN, "release", "1.1.0"]


@pytest.mark.parametrize("held", ["lock", "work"])
def test_a_refusal_names_the_run_that_started_first(followed: Followed, held: str) -> None:
    """Another run took the lock between the check and the start of the unit."""

    def loses(*arguments: Any, **_named: Any) -> Result:
        taken.enter_context(lock.exclusive(getattr(followed.paths, held), "ada's release", 0))
        return Result(1, stderr="Unit bot-release.service was already loaded")

    with ExitStack() as taken, pytest.MonkeyPatch.context() as patched:
        patched.setattr(followed, "run", loses)
        with pytest.raises(LockedError, match="ada's release has held the lock"):
            start(followed, "release", "1.1.0")


def test_a_run_that_has_just_started_without_a_lock_refuses_another(followed: Followed) -> None:
    said = "Failed to start transient service unit: Unit bot-release.service was already loaded or has a fragment file."
    followed.failing = {"systemd-run": Result(1, stderr=said)}
    with pytest.raises(
        LockedError, match=r"another release or restore has just started\. Next: wait until it has finished"
    ):
        start(followed, "release", "1.1.0")


def test_a_unit_that_systemd_does_not_start_is_reported(followed: Followed) -> None:
    followed.failing = {"systemd-run": Result(1, stderr="Failed to connect to bus")}
    with pytest.raises(FailedError, match="systemd cannot start the run: Failed to connect to bus"):
        start(followed, "release", "1.1.0")
    assert not followed.ran("systemctl stop")


def test_a_unit_that_timed_out_does_not_start_later(followed: Followed) -> None:
    """A unit that timed out, for example in the queue behind a boot, must not start later."""
    followed.failing = {"systemd-run": Result(TIMED_OUT, stderr="timed out after 60 s")}
    with pytest.raises(FailedError, match="systemd cannot start the run: timed out after 60 s"):
        start(followed, "release", "1.1.0")
    assert followed.calls[-1] == ["systemctl", "stop", "bot-release.service"]


def test_a_follower_that_stops_is_told_that_the_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> int:
        raise KeyboardInterrupt

    droplet = installed(tmp_path)
    monkeypatch.setattr(background, "follow", interrupted)
    code, shown = stackctl(droplet, "release", "1.0.0")
    assert code == 4
    for said in (
        "a run that has started continues by itself",
        "stackctl release --follow to follow the run again",
        "systemctl stop bot-release.service",
    ):
        assert said in shown


def test_a_bad_declaration_is_refused_before_a_unit_is_started(tmp_path: Path) -> None:
    droplet = installed(tmp_path, watch=0)
    for verb in (["release", "1.0.0"], ["rollback"]):
        code, shown = stackctl(droplet, *verb)
        assert code == 2
        assert "watch must be a whole number above 0" in shown
    assert not droplet.calls


def test_machines_are_told_in_json_how_it_ends(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    code, shown = stackctl(droplet, "--by", "ada", "release", "9.9.9", "--json")
    first, *_, last = (json.loads(line) for line in shown.splitlines())
    assert (first["by"], first["tag"]) == ("ada", "9.9.9")
    assert (code, last["code"]) == (2, 2)


@pytest.mark.parametrize("fits", [0, 3])
def test_on_a_full_disk_it_is_heard_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    """The follower reports the end of a run even if the disk fills up during the run."""
    droplet, append, left = installed(tmp_path), events.append, [OSError(28, "No space left on device")]

    def full(path: Path, event: Mapping[str, Any]) -> None:
        if path == droplet.paths.history and len(left) > fits:
            raise left[0]
        left.extend(left[:1] if path == droplet.paths.history else [])
        append(path, event)

    droplet.paths.unwritten.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(events, "append", full)
    code, shown = stackctl(droplet, "release", "9.9.9")
    assert (code, "cannot pull" in shown.splitlines()[-1]) == (2, True), shown
    assert "release    start 9.9.9 by root" in shown.splitlines()[0]
    assert stackctl(droplet, "release", "--follow") == (code, shown)
    (run,) = json.loads(stackctl(droplet, "history", "--json")[1])
    assert (run["tag"], run["code"]) == ("9.9.9", 2)
    monkeypatch.undo()
    assert len(droplet.paths.history.read_bytes().splitlines() if fits else []) == fits


def test_a_dry_run_is_followed_and_is_no_release(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    code, shown = stackctl(droplet, "release", "1.0.0", "--dry-run", "--json")
    first, *_, last = (json.loads(line) for line in shown.splitlines())
    assert (code, first["op"], first["tag"], last["code"]) == (0, "dry-run", "1.0.0", 0)
    assert stackctl(droplet, "release", "--follow")[0] == 2


def test_a_rollback_is_told_by_the_tag_that_it_leads_to(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    for tag in ("1.0.0", "1.1.0"):
        assert stackctl(droplet, "release", tag)[0] == 0
    code, shown = stackctl(droplet, "rollback", "--json")
    first = json.loads(shown.splitlines()[0])
    assert (code, first["op"], first["tag"]) == (0, "rollback", "1.0.0")
