"""A failed release is undone, and its message names the steps that could not be undone."""

import re
from pathlib import Path
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.core import disk
from stackctl.core.program import TIMED_OUT, Result
from tests.support.fakes.droplet import Droplet, change, installed, stackctl
from tests.support.releases import ENDED, assert_one_colour_serves, ids, remembered, running

MIGRATION = "bot-migrate-"


STARTING = {"health": "starting"}
COMPLAINT = {"info": {"last_error_date": 1 << 40, "last_error_message": "500 Internal Server Error"}}
BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "no such tag": ({"docker.registry": {}}, 2, "manifest unknown"),
    "image that runs as root": (
        {"docker.image_user": "0:10001"},
        2,
        "would run as root (USER '0:10001'). Next: set USER to another account",
    ),
    "image for another architecture": (
        {"docker.image_architecture": "arm64"},
        2,
        "is built for arm64, but this droplet has the architecture amd64. "
        "Next: build the image with --platform linux/amd64",
    ),
    "image without a user": ({"docker.image_user": ""}, 2, "would run as root (USER '')"),
    "label of another version": ({"docker.registry": {"1.1.0": "9.9.9"}}, 2, "has version '9.9.9'"),
    "docker is down": ({"failing": {"docker ps": Result(1, stderr="Cannot connect")}}, 1, "Cannot connect"),
    "disk full": ({"failing": {"docker tag": Result(1, stderr="no space left on device")}}, 1, "no space left"),
    "little disk": ({"bytes_free": 100 << 20}, 2, "100 MiB left"),
    "few connections": ({"postgres.connections": 11}, 2, "11 connections left, but a colour may need 12"),
    "schema can't be read": ({"failing": {"schema --json": Result(1, stderr="refused")}}, 1, "refused"),
    "schema says nonsense": (
        {"failing": {"schema --json": Result(0, '{"current": 1}')}},
        1,
        "does not follow the app contract",
    ),
    "dump fails": ({"failing": {"pg_dump ": Result(1, stderr="server closed the connection")}}, 1, "server closed"),
    "dump can't be read": ({"failing": {"pg_restore": Result(1, stderr="too short")}}, 1, "too short"),
    "migration fails": ({"failing": {MIGRATION: Result(3, "Traceback", "KeyError: revision")}}, 1, "exit code 3"),
    "migration hangs": ({"failing": {MIGRATION: Result(TIMED_OUT)}}, 1, "took longer than 10 s"),
    "compose fails": ({"failing": {"app.yaml up": Result(1, stderr="address in use")}}, 1, "address in use"),
    "ends at start": ({"docker.new_containers": {"web": ENDED}}, 1, "web ended by itself (exit code 3)"),
    "restarts again and again": ({"docker.new_containers": {"web": {"restarts": 2}}}, 1, "web ended by itself"),
    "never healthy": (
        {"docker.new_containers": {"web": STARTING}},
        1,
        "web is running, starting (stackctl waited 20 s)",
    ),
    "worker ends at start": ({"docker.new_containers": {"worker": ENDED}}, 1, "worker ended by itself (exit code 3)"),
    "worker never healthy": (
        {"docker.new_containers": {"worker": STARTING}},
        1,
        "worker is running, starting (stackctl waited 20 s)",
    ),
    "no update is taken": ({"app": {"ready": 200, "update": 500}}, 1, "/webhook answers 500"),
    "not ready after the flip": ({"later": {"ready": 503}}, 1, "/ready no longer answers 200"),
    "Telegram complains after the flip": (
        {"later": COMPLAINT},
        1,
        "Telegram reports an error: 500 Internal Server Error",
    ),
    "socket unit fails": ({"failing": {"systemctl start": Result(1, stderr="unit failed")}}, 1, "unit failed"),
    "never ready": ({"app": {"ready": 503}}, 1, "/ready answers 503 (stackctl waited 20 s)"),
    "wrong version": ({"app": {"ready": 200, "version": "0.9"}}, 1, "reports version '0.9'"),
}
FIRST = {
    "migration hangs": "see what the migrations wait for (pg_stat_activity)",
    "wrong version": "build the image again",
}
"""The first step that a failed release's message recommends, if it recommends more than to fix the cause."""


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("first", [True, False])
def test_a_failure_is_undone(tmp_path: Path, name: str, *, first: bool) -> None:
    fresh = installed(tmp_path)
    if not first:
        stackctl(fresh, "release", "1.0.0")
        fresh.postgres.schema = None if name.startswith("migration") else fresh.postgres.schema
    before = (remembered(fresh), ids(fresh), running(fresh), set(fresh.systemd.units))
    broken, expected, said = BROKEN[name]
    change(fresh, broken)
    code, shown = stackctl(fresh, "release", "1.1.0")
    last = shown.splitlines()[-1]
    assert (code, said in last) == (expected, True), shown
    if code == 1:
        serves = "Everything is undone" if first else "1.0.0 is still live"
        assert f". {serves}. Next: {FIRST.get(name, 'fix the cause')}, then stackctl release 1.1.0" in last
    assert before == (remembered(fresh), ids(fresh), running(fresh), fresh.systemd.units)
    assert not any(container["one_off"] for container in fresh.docker.containers)


def test_an_image_and_a_dump_need_room_together_where_they_share_a_disk(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.bytes_free = disk.IMAGE + (10 << 20)
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 2
    assert (
        "has 522 MiB left, but a backup may need 262 MiB and an image may need 512 MiB. Next: make room there"
        in shown.splitlines()[-1]
    )
    monkeypatch.setattr(disk, "IMAGE", 250 << 20)
    assert stackctl(live, "release", "1.1.0")[0] == 0


def test_the_log_of_what_failed_is_shown_without_secrets(live: Droplet) -> None:
    live.docker.new_containers = {"web": ENDED}
    _, shown = stackctl(live, "release", "1.1.0")
    assert re.search(r"\| log of web\d+: \*\*\*$", shown, re.MULTILINE)


def test_a_failed_undo_is_reported(live: Droplet) -> None:
    live.failing = {"docker stop": Result(1, stderr="daemon is gone")}
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 4
    assert (
        "a container doesn't stop: daemon is gone. Not undone: worker, start. Next: stackctl release 1.1.0"
        in shown.splitlines()[-1]
    )
    assert state.load(live.paths).active == "blue"
    live.failing = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert_one_colour_serves(live)


def test_what_fails_after_it_was_recorded_is_told_and_not_undone(live: Droplet) -> None:
    live.failing = {"image ls": Result(1, stderr="daemon is gone")}
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 4
    assert (
        "1.1.0 is live in green, but Docker can't list images: daemon is gone. Next: stackctl release 1.1.0"
        in shown.splitlines()[-1]
    )
    assert state.load(live.paths).active == "green"
    live.failing = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert len(live.docker.running()) == 1


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device"), ZeroDivisionError()])
def test_an_interruption_or_a_fault_of_our_own_is_undone_too(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def starts(*_arguments: object) -> None:
        raise fault

    before = state.load(live.paths), ids(live), running(live)
    monkeypatch.setattr(Stack, "bring_up", starts)
    code, shown = stackctl(live, "release", "1.1.0")
    if isinstance(fault, ZeroDivisionError):
        assert code == 4
        assert "internal error in stackctl (ZeroDivisionError())" in shown.splitlines()[-1]
    else:
        assert code == 1
        assert ("interrupted" if isinstance(fault, KeyboardInterrupt) else "No space left") in shown.splitlines()[-1]
    assert before == (state.load(live.paths), ids(live), running(live))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_failed_undo_is_reported_and_the_rest_is_undone(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    before = {path.name for path in live.paths.secrets.glob("*.json")}

    def refuses(*_: object) -> None:
        raise error

    remove, opened = Stack.remove_colour, live.ran
    live.app = {"ready": 200, "update": 500}
    monkeypatch.setattr(
        Stack, "remove_colour", lambda stack, colour: refuses() if opened("POST green.sock") else remove(stack, colour)
    )
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 4
    assert ". Not undone: start. Next: stackctl release 1.1.0" in shown.splitlines()[-1]
    assert f"start      failed not undone: {error}" in shown
    assert {path.name for path in live.paths.secrets.glob("*.json")} == before
