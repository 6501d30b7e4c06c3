"""A run writes events to history.jsonl and to the terminal. `stackctl history` reads these events."""

import json
import os
import resource
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from stackctl.core import events, history
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from tests.support.fakes.droplet import Droplet, installed, stackctl


def test_a_torn_line_spoils_no_other(paths: Paths) -> None:
    events.append(paths.history, {"n": 1})
    with paths.history.open("a") as file:
        file.write('{"n": 2, "mess')
    events.append(paths.history, {"n": 3})
    first, torn, last = paths.history.read_text().splitlines()
    assert (json.loads(first), json.loads(last)) == ({"n": 1}, {"n": 3})
    assert torn == '{"n": 2, "mess'


def test_a_step_tells_how_long_it_took_and_how_it_ended(paths: Paths) -> None:
    machine, out = Droplet(paths), StringIO()
    log = events.RunLog(paths.history, "release", machine, out, ["s3cret-value"])

    def pull() -> str:
        machine.seconds += 1.5
        return "s3cret-value"

    def start() -> str:
        raise FailedError("no room: s3cret-value")

    log.step("pull", pull, "the image")
    with pytest.raises(FailedError):
        log.step("start", start)
    assert out.getvalue().splitlines() == [
        "   0.0 s  pull       start the image",
        "   1.5 s  pull       done *** (1.5 s)",
        "   1.5 s  start      start",
        "   1.5 s  start      failed no room: *** (0.0 s)",
    ]
    told_as = [json.loads(line) for line in paths.history.read_text().splitlines()]
    assert [(event["step"], event["state"], event["ms"]) for event in told_as] == [
        ("pull", "start", None),
        ("pull", "done", 1500),
        ("start", "start", None),
        ("start", "failed", 0),
    ]
    assert told_as[1]["ts"] == "2025-11-23T12:00:01.500+00:00"


def told(paths: Paths) -> list[dict[str, Any]]:
    return [json.loads(line) for line in paths.history.read_text().splitlines()]


def test_a_run_begins_with_who_asked_for_what_and_ends_with_its_exit_code(paths: Paths) -> None:
    machine, out = Droplet(paths), StringIO()
    log = events.RunLog(paths.history, "release", machine, out, ["s3cret-value"], "20251123T120000.000Z")
    log.begin("ada", "1.1.0")
    log.emit("pull", "progress", "half of it")
    machine.seconds += 2
    log.end(1, "no room: s3cret-value")
    run = {"run": "20251123T120000.000Z", "op": "release"}
    of_run = {**run, "step": "release"}
    at = "2025-11-23T12:00:00.000+00:00"
    assert told(paths) == [
        {"ts": at, **of_run, "state": "start", "ms": None, "message": "1.1.0 by ada", "by": "ada", "tag": "1.1.0"},
        {"ts": at, **run, "step": "pull", "state": "progress", "ms": None, "message": "half of it"},
        {
            **{"ts": at.replace("00.000+", "02.000+"), **of_run, "state": "failed", "ms": 2000},
            **{"message": "no room: ***", "code": 1},
        },
    ]
    assert out.getvalue().splitlines() == [
        "   0.0 s  release    start 1.1.0 by ada",
        "   0.0 s  pull       progress half of it",
        "   2.0 s  release    failed no room: *** (2.0 s)",
    ]


@pytest.mark.parametrize(("code", "ended"), [(0, "done"), (1, "failed"), (2, "failed"), (4, "failed")])
def test_a_run_is_done_when_its_exit_code_is_0(paths: Paths, code: int, ended: str) -> None:
    log = events.RunLog(paths.history, "backup", Droplet(paths), StringIO())
    log.begin("root")
    log.end(code)
    first, last = told(paths)
    assert (first["message"], first["tag"]) == ("by root", "")
    assert (last["state"], last["code"]) == (ended, code)


def test_a_containers_log_is_an_event_a_line_without_secrets(paths: Paths) -> None:
    """A container's log is masked before it is cut into lines, so that a secret of several lines is also masked."""
    out = StringIO()
    log = events.RunLog(paths.history, "release", Droplet(paths), out, ["one-line\nthe-other"])
    log.emit_tail("start", "Traceback:\nkey one-line\nthe-other is bad\n")
    assert [(e["step"], e["state"], e["message"]) for e in told(paths)] == [
        ("start", "log", "Traceback:"),
        ("start", "log", "key *** is bad"),
    ]
    assert out.getvalue() == "    | Traceback:\n    | key *** is bad\n"


def test_a_verb_that_only_looks_leaves_no_history(paths: Paths) -> None:
    out = StringIO()
    log = events.RunLog(None, "status", Droplet(paths), out)
    log.begin("root")
    log.end(0)
    assert not paths.history.exists()
    assert len(out.getvalue().splitlines()) == 2


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_history_is_roots_alone(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can read the history, under any umask of the caller, even after it is trimmed."""
    former = os.umask(0)
    try:
        events.append(paths.history, {"n": 1})
        assert mode(paths.history) == 0o600
        monkeypatch.setattr(events, "MOST_LINES", 0)
        events.trim(paths.history)
        assert mode(paths.history) == 0o600
    finally:
        os.umask(former)


def test_a_history_that_has_grown_too_long_keeps_its_newest_lines(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_LINES", 6)
    monkeypatch.setattr(events, "KEPT_LINES", 2)
    for n in range(6):
        events.append(paths.history, {"n": n})
    events.trim(paths.history)
    assert len(told(paths)) == 6
    events.append(paths.history, {"n": 6})
    events.trim(paths.history)
    assert told(paths) == [{"n": 5}, {"n": 6}]
    assert list(paths.var.iterdir()) == [paths.history]


def test_only_a_release_trims_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a release trims the history, and only once.

    After a trim, each follower must read from the beginning again.
    """
    droplet = installed(tmp_path)
    monkeypatch.setattr(events, "MOST_LINES", 4)
    monkeypatch.setattr(events, "KEPT_LINES", 2)
    for verb in (["maintenance", "on"], ["boot"], ["backup"]):
        assert stackctl(droplet, *verb)[0] == 0
    assert [run["op"] for run in history.runs(droplet.paths)] == ["maintenance", "boot", "backup"]
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    assert history.runs(droplet.paths) == []
    assert [(event["step"], event["state"]) for event in told(droplet.paths)[:3]] == [
        ("stop", "done"),
        ("prune", "start"),
        ("prune", "done"),
    ]


@pytest.mark.parametrize(
    "line", [b"", b"{", b"\0\0\0\0", b"\xff", b"[]", b"7", b'{"ts": "x"}', b'{"run": "r", "op": "o", "step": "s"}']
)
def test_a_line_that_is_no_event_is_skipped(line: bytes) -> None:
    assert events.parsed(line) is None


def test_an_event_is_read_as_it_was_written(paths: Paths) -> None:
    events.RunLog(paths.history, "release", Droplet(paths), StringIO(), (), "r").emit("pull", "done", 'ü\n"', 5)
    event = events.parsed(paths.history.read_bytes().rstrip())
    assert event
    assert (event["run"], event["op"], event["message"], event["ms"]) == ("r", "release", 'ü\n"', 5)


def test_runs_are_read_whole_even_if_mixed_torn_or_trimmed(paths: Paths) -> None:
    def run_log(op: str, run: str) -> events.RunLog:
        return events.RunLog(paths.history, op, Droplet(paths), StringIO(), (), run)

    run_log("release", "trimmed").emit("pull", "done")
    release, boot = run_log("release", "2"), run_log("boot", "3")
    release.begin("ada", "1.1.0")
    release.step("pull", lambda: "the image")
    boot.begin("root")
    with paths.history.open("a") as file:
        file.write('{"run": "2", "op": "release", "st')
    release.emit("release", "start")  # a step with the verb's name does not begin a run
    release.emit("pull", "undone")
    release.emit_tail("pull", "a line")
    release.end(1, "no room")
    told_of, begun = history.runs(paths)
    assert [(step["step"], step["state"]) for step in told_of.pop("steps")] == [("pull", "done"), ("pull", "undone")]
    assert told_of == {
        **{"run": "2", "op": "release", "by": "ada", "tag": "1.1.0", "at": "2025-11-23T12:00:00.000+00:00"},
        **{"state": "failed", "code": 1, "ms": 0, "message": "no room"},
    }
    assert (begun["op"], begun["state"], begun["code"]) == ("boot", "unfinished", None)


def test_people_read_the_newest_runs_first(paths: Paths) -> None:
    assert history.text(history.runs(paths)) == "there is no run yet"
    for n in range(history.SHOWN + 2):
        log = events.RunLog(paths.history, "release", Droplet(paths), StringIO(), (), str(n))
        log.begin("ada", f"1.{n}.0")
        log.step("pull", lambda: "the image")
        log.end(n % 2, "no room" if n % 2 else "")
    shown = history.text(history.runs(paths)).splitlines()
    assert shown[:5] == [
        "2025-11-23T12:00:00  release 1.11.0    failed        0.0 s  by ada",
        "    pull 0.0",
        "    no room",
        "2025-11-23T12:00:00  release 1.10.0    done          0.0 s  by ada",
        "    pull 0.0",
    ]
    assert sum("by ada" in line for line in shown) == history.SHOWN
    assert "1.1.0" not in "\n".join(shown)


@pytest.mark.parametrize(
    "verb", [["release", "1.0.0"], ["rollback"], ["boot"], ["halt"], ["maintenance", "on"], ["backup"]]
)
def test_every_verb_that_changes_something_is_remembered(tmp_path: Path, verb: list[str]) -> None:
    droplet = installed(tmp_path)
    code, _ = stackctl(droplet, "--by", "ada", *verb)
    (run,) = json.loads(stackctl(droplet, "history", "--json")[1])
    assert (run["op"], run["by"], run["code"]) == (verb[0], "ada", code)


def test_a_dry_run_is_remembered_as_that(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "--by", "ada", "release", "1.0.0", "--dry-run")[0] == 0
    (run,) = json.loads(stackctl(droplet, "history", "--json")[1])
    assert (run["op"], run["tag"], run["by"], run["state"]) == ("dry-run", "1.0.0", "ada", "done")


def test_history_that_cannot_be_written_stops_nothing(paths: Paths) -> None:
    paths.history.mkdir()
    out = StringIO()
    log = events.RunLog(paths.history, "release", Droplet(paths), out)
    log.begin("ada", "1.0.0")
    log.emit("pull", "start")
    assert out.getvalue().count("Is a directory") == 2


def test_a_line_that_a_full_disk_cuts_off_goes_elsewhere(paths: Paths) -> None:
    paths.unwritten.parent.mkdir(parents=True)
    log = events.RunLog(paths.history, "release", Droplet(paths), StringIO(), spare=paths.unwritten)
    log.emit("pull", "start")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (paths.history.stat().st_size + 9, hard))
    try:
        log.emit("pull", "done")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.emit("start", "start")
    told = [line for line in map(events.parsed, paths.history.read_bytes().splitlines()) if line]
    assert [(event["step"], event["state"]) for event in told] == [("pull", "start"), ("start", "start")]
    assert json.loads(paths.unwritten.read_text())["state"] == "done"


def test_a_terminal_that_is_gone_stops_nothing(paths: Paths) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        log = events.RunLog(paths.history, "release", Droplet(paths), out)
        log.emit("pull", "start")
        log.emit("pull", "done")
    assert len(paths.history.read_text().splitlines()) == 2
