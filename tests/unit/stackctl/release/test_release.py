"""A release on a droplet in memory: it goes through, or all is as it was; killed anywhere, it can be finished."""

import json
import os
import re
import signal
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.app import state
from stackctl.app.app_env import canonical, env_sha256
from stackctl.app.stack import DRAIN_SECONDS, Stack
from stackctl.app.state import State
from stackctl.backup import manifest
from stackctl.cli import main
from stackctl.core import disk, lock
from stackctl.core.errors import RefusedError
from stackctl.core.paths import other
from stackctl.core.program import TIMED_OUT, Result
from stackctl.release import release
from tests.support.fakes.declared import REPOSITORY
from tests.support.fakes.droplet import (
    ENVIRONMENT,
    KNOWN,
    Droplet,
    change,
    installed,
    killed,
    killed_at_its_watch,
    kills,
    stackctl,
)


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.fixture
def live(fresh: Droplet) -> Droplet:
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    fresh.calls.clear()
    return fresh


def ids(fresh: Droplet) -> set[str]:
    """Releases whose environment is kept, and whose image is."""
    snapshots = {path.stem for path in fresh.paths.secrets.glob("*.json")} - {"next"}
    images = {name.partition(":")[2] for name in fresh.docker.images if name.startswith("bot/release:")}
    assert snapshots == images
    return snapshots


def remembered(fresh: Droplet) -> State:
    """But for the revisions, which stay applied whatever becomes of the release."""
    return replace(state.load(fresh.paths), revisions=())


def running(fresh: Droplet) -> list[tuple[str, str]]:
    """What runs, and of what image."""
    return sorted((c["project"], c["image"]) for c in fresh.docker.containers if c["state"] == "running")


def test_the_first_release_serves_in_blue(fresh: Droplet) -> None:
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 0, shown
    current = state.load(fresh.paths)
    assert current.active == "blue"
    assert current.release
    assert current.release.image == f"{REPOSITORY}@sha256:1.0.0"
    assert current.release.env_sha256 == env_sha256(ENVIRONMENT)
    assert ids(fresh) == {current.release.id}
    assert fresh.paths.active.readlink() == Path("blue.sock")
    assert fresh.paths.snapshot(current.release.id).read_bytes() == canonical(ENVIRONMENT)
    assert fresh.paths.snapshot(current.release.id).stat().st_mode & 0o777 == 0o600


def test_a_first_release_of_an_app_without_a_worker_speaks_of_no_other(tmp_path: Path) -> None:
    fresh = installed(tmp_path, worker=False)
    _, planned = stackctl(fresh, "release", "1.0.0", "--dry-run")
    _, shown = stackctl(fresh, "release", "1.0.0")
    for untrue in ("stays warm", "the worker is replaced", "it replaces", "old colour"):
        assert untrue not in planned + shown
    assert "1.0.0 (registry.lab.test/bot@sha256:1.0.0) goes live in blue; it is the first one" in planned
    ended = [line.split(maxsplit=2)[2] for line in shown.splitlines() if re.search("(worker|drain|stop) +done", line)]
    assert [line.rpartition(" (")[0] for line in ended] == [
        "worker     done the app has none",
        "drain      done nothing served before",
        "stop       done nothing served before",
    ]


def test_the_next_release_takes_the_other_colour_and_ends_the_old_one(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert state.load(live.paths).active == "green"
    assert live.docker.running() == ["green"]
    assert [c["state"] for c in live.docker.of("bot-blue")] == ["exited"]
    assert live.systemd.units == {"bot-green.socket"}
    blue = state.load(live.paths).colours["blue"]
    assert blue
    assert blue.id in ids(live)


def test_the_order_of_a_release(live: Droplet) -> None:
    """Nothing of the old colour is touched before the flip."""
    stackctl(live, "release", "1.1.0")
    words = [
        "docker pull",
        " tag ",
        "schema --json",
        "pg_dump ",
        "POST green.sock /webhook",
        "bot-worker --file",
        "stop --no-block bot-blue.socket",
        "image ls",
        "telegram getWebhookInfo",
    ]
    positions = [max(i for i, call in enumerate(live.calls) if word in " ".join(call)) for word in words]
    assert positions == sorted(positions)


def test_every_event_is_a_line_of_history_and_of_the_terminal(fresh: Droplet) -> None:
    _, shown = stackctl(fresh, "release", "1.0.0")
    events = [json.loads(line) for line in fresh.paths.history.read_text().splitlines()]
    assert len(events) == len(shown.splitlines())
    assert all(event.keys() >= {"ts", "run", "op", "step", "state", "ms", "message"} for event in events)
    done = [event["step"] for event in events if event["state"] == "done"]
    assert done == [*(step.name for step in release.STEPS), "release"]
    assert (events[0]["by"], events[0]["tag"], events[-1]["code"]) == ("root", "1.0.0", 0)


MIGRATION = "bot-migrate-"
ENDED = {"state": "exited", "exit_code": 3}
STARTING = {"health": "starting"}
COMPLAINT = {"info": {"last_error_date": 1 << 40, "last_error_message": "500 Internal Server Error"}}
BROKEN: dict[str, tuple[dict[str, Any], int, str]] = {
    "no such tag": ({"docker.registry": {}}, 2, "manifest unknown"),
    "image that runs as root": (
        {"docker.image_user": "0:10001"},
        2,
        "would run as root (USER '0:10001'). Next: give it any USER but 0",
    ),
    "image for another architecture": (
        {"docker.image_architecture": "arm64"},
        2,
        "is built for another architecture, arm64: this droplet is amd64. Next: build it with --platform linux/amd64",
    ),
    "image without a user": ({"docker.image_user": ""}, 2, "would run as root (USER '')"),
    "label of another version": ({"docker.registry": {"1.1.0": "9.9.9"}}, 2, "says it is version '9.9.9'"),
    "docker is down": ({"failing": {"docker ps": Result(1, stderr="Cannot connect")}}, 1, "Cannot connect"),
    "disk full": ({"failing": {"docker tag": Result(1, stderr="no space left on device")}}, 1, "no space left"),
    "little disk": ({"bytes_free": 100 << 20}, 2, "100 MiB left"),
    "few connections": ({"postgres.connections": 11}, 2, "11 connections left, a colour may need 12"),
    "schema can't be read": ({"failing": {"schema --json": Result(1, stderr="refused")}}, 1, "refused"),
    "schema says nonsense": (
        {"failing": {"schema --json": Result(0, '{"current": 1}')}},
        1,
        "the form of the app contract",
    ),
    "dump fails": ({"failing": {"pg_dump ": Result(1, stderr="server closed the connection")}}, 1, "server closed"),
    "dump can't be read": ({"failing": {"pg_restore": Result(1, stderr="too short")}}, 1, "too short"),
    "migration fails": ({"failing": {MIGRATION: Result(3, "Traceback", "KeyError: revision")}}, 1, "exit code 3"),
    "migration hangs": ({"failing": {MIGRATION: Result(TIMED_OUT)}}, 1, "took longer than 10 s"),
    "compose fails": ({"failing": {"app.yaml up": Result(1, stderr="address in use")}}, 1, "address in use"),
    "ends at start": ({"docker.new_containers": {"web": ENDED}}, 1, "web ended by itself (exit code 3)"),
    "restarts again and again": ({"docker.new_containers": {"web": {"restarts": 2}}}, 1, "web ended by itself"),
    "never healthy": ({"docker.new_containers": {"web": STARTING}}, 1, "web is running, starting after 20 s"),
    "worker ends at start": ({"docker.new_containers": {"worker": ENDED}}, 1, "worker ended by itself (exit code 3)"),
    "worker never healthy": (
        {"docker.new_containers": {"worker": STARTING}},
        1,
        "worker is running, starting after 20 s",
    ),
    "no update is taken": ({"app": {"ready": 200, "update": 500}}, 1, "/webhook answers 500"),
    "not ready after the flip": ({"later": {"ready": 503}}, 1, "/ready is no longer ready"),
    "Telegram complains after the flip": ({"later": COMPLAINT}, 1, "Telegram says: 500 Internal Server Error"),
    "socket unit fails": ({"failing": {"systemctl start": Result(1, stderr="unit failed")}}, 1, "unit failed"),
    "never ready": ({"app": {"ready": 503}}, 1, "/ready answers 503 after 20 s"),
    "wrong version": ({"app": {"ready": 200, "version": "0.9"}}, 1, "says version '0.9'"),
}


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
        assert f". {serves}. Next: fix the cause, then stackctl release 1.1.0" in last
    assert before == (remembered(fresh), ids(fresh), running(fresh), fresh.systemd.units)
    assert not any(container["one_off"] for container in fresh.docker.containers)


def test_an_image_and_a_dump_need_room_together_where_they_share_a_disk(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.bytes_free = disk.IMAGE + (10 << 20)
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 2
    assert (
        "has 522 MiB left, a backup may need 262 and an image may need 512: make room there" in shown.splitlines()[-1]
    )
    monkeypatch.setattr(disk, "IMAGE", 250 << 20)
    assert stackctl(live, "release", "1.1.0")[0] == 0


def test_the_log_of_what_failed_is_shown_without_secrets(live: Droplet) -> None:
    live.docker.new_containers = {"web": ENDED}
    _, shown = stackctl(live, "release", "1.1.0")
    assert re.search(r"\| log of web\d+: \*\*\*$", shown, re.MULTILINE)


def test_it_starts_anew_with_a_changed_environment_while_the_registry_is_gone(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))
    live.docker.registry.clear()
    code, shown = stackctl(live, "release", "1.0.0")
    assert code == 0, shown
    assert "manifest unknown" in shown
    assert json.loads(stackctl(live, "status", "--json")[1])["environment_differs"] is False


def test_without_migrations_none_are_run(tmp_path: Path) -> None:
    fresh = installed(tmp_path, migrate=False)
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    assert not fresh.ran(" run ")


@pytest.mark.parametrize("broken", ["postgres", "redis"])
def test_it_is_refused_while_data_is_not_well(fresh: Droplet, broken: str) -> None:
    next(c for c in fresh.docker.containers if c["service"] == broken)["health"] = "unhealthy"
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 2
    assert f"{broken} not healthy" in shown


def test_another_major_version_of_postgresql_is_refused(tmp_path: Path) -> None:
    """Of what is declared: data.yaml has changed, and the converge hasn't come to it yet."""
    fresh = installed(tmp_path)
    declared = json.loads(fresh.paths.config.read_text())
    declared["data"]["major"] = 18
    fresh.paths.config.write_text(json.dumps(declared))
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 2
    assert "PostgreSQL 17 runs, 18 is declared: converge the site first" in shown.splitlines()[-1]
    assert not fresh.ran("docker pull")


def test_data_on_another_host_is_not_looked_for(tmp_path: Path) -> None:
    fresh = installed(tmp_path, data=None)
    fresh.docker.containers.clear()
    assert stackctl(fresh, "release", "1.0.0")[0] == 0


@pytest.mark.parametrize("content", [b"{", b'{"COMPOSE_FILE": "/tmp/x"}', b'{"A": 1}', None])
def test_a_bad_environment_is_refused(fresh: Droplet, content: bytes | None) -> None:
    if content is None:
        fresh.paths.next_environment.unlink()
    else:
        fresh.paths.next_environment.write_bytes(content)
    assert stackctl(fresh, "release", "1.0.0")[0] == 2
    assert not fresh.ran("docker ")


def test_what_can_not_be_undone_is_told(live: Droplet) -> None:
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
        "1.1.0 is live in green, but docker can't list images: daemon is gone. Next: stackctl release 1.1.0"
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


def test_three_releases_are_kept_and_the_images_they_need(fresh: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in range(6):
        fresh.docker.publish(f"2.{minor}.0")
        monkeypatch.setitem(KNOWN, f"2.{minor}.0", ["0001"])
        assert stackctl(fresh, "release", f"2.{minor}.0")[0] == 0
    assert len(ids(fresh)) == 3
    assert {image for name, image in fresh.docker.images.items() if name.startswith(REPOSITORY)} == {
        "2.3.0",
        "2.4.0",
        "2.5.0",
    }


def test_releasing_the_same_again_leaves_something_to_go_back_to(live: Droplet) -> None:
    for _ in range(4):
        assert stackctl(live, "release", "1.1.0")[0] == 0
    assert stackctl(live, "rollback")[0] == 0
    assert [known.tag for known in state.load(live.paths).kept] == ["1.0.0", "1.1.0"]


def test_releases_that_fail_do_not_fill_the_disk(live: Droplet) -> None:
    live.app = {"ready": 200, "update": 500}
    for _ in range(5):
        assert stackctl(live, "release", "1.1.0")[0] == 1
    # Their dumps are all there is, until a newer backup was proven. Where there is no room, a release is refused.
    assert len(list(live.paths.backups.iterdir())) == 6
    assert stackctl(live, "backup")[0] == 0
    assert [one.reason for one in manifest.every(live.paths.backups)] == ["release"] * 3 + ["asked"]
    assert not [name for name in live.docker.images if name.endswith(":1.1.0") and "@" not in name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_it_undone_and_further_ones_do_not_end_that(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As systemd's at a shutdown, and then somebody's who loses patience."""
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


def test_a_signal_amid_the_undoing_does_not_end_it(live: Droplet) -> None:
    live.app = {"ready": 200, "update": 500}
    assert stackctl(live, "release", "1.1.0")[0] == 1
    calls = [" ".join(call) for call in live.calls]
    removals = [at for at, call in enumerate(calls) if call.startswith("docker rm ")]
    assert calls.index("shield") < removals[-1]


def test_the_image_of_the_live_release_survives_being_released_often(fresh: Droplet) -> None:
    for _ in range(5):
        assert stackctl(fresh, "release", "1.0.0")[0] == 0
        assert f"{REPOSITORY}@sha256:1.0.0" in fresh.docker.images


def test_what_a_rollback_needs_is_kept_though_it_looks_old(live: Droplet) -> None:
    """The clock was ahead when releases were killed: their environments look newer."""
    for orphan in range(3):
        live.paths.snapshot(f"2099010{orphan}T000000Z").write_text("{}")
    assert stackctl(live, "release", "1.1.0")[0] == 0
    kept = {path.stem for path in live.paths.secrets.glob("*.json")}
    assert {release.id for release in state.load(live.paths).colours.values() if release} <= kept


def assert_one_colour_serves(fresh: Droplet) -> None:
    current = state.load(fresh.paths)
    assert fresh.docker.running() == [current.active]
    assert [c["state"] for c in fresh.docker.of(fresh.paths.docker.worker_project)] == ["running"]
    assert current.release
    assert {c["image"] for c in fresh.docker.of(fresh.paths.docker.project(current.active or ""))} == {
        current.release.image
    }
    assert fresh.paths.snapshot(current.release.id).exists()
    assert fresh.paths.units.socket(current.active or "") in fresh.systemd.units


def test_killed_at_any_moment_it_serves_on_boots_and_can_be_finished(tmp_path: Path) -> None:
    """At each call and event in turn; the files it leaves are the real ones."""
    served = list[str]()
    fresh = installed(tmp_path / "droplet")
    stackctl(fresh, "release", "1.0.0")
    for at, left in kills(fresh, "release", "1.1.0"):
        current = state.load(left.paths)
        served.append(current.active or "")
        assert current.active in left.docker.running()
        assert current.release
        assert current.release.tag == ("1.0.0" if current.active == "blue" else "1.1.0")
        if at % 2:  # a reset between the kill and the next try, or none
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
def test_what_a_kill_leaves_is_what_was_copied_at_its_moment(tmp_path: Path, at: int) -> None:
    """`kills` is a quicker `killed`, and has to show the same."""

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


def test_killed_at_any_moment_what_was_recorded_is_whole_again_though_the_next_try_is_refused(tmp_path: Path) -> None:
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


def test_killed_at_its_first_release_the_next_try_finishes(tmp_path: Path) -> None:
    recorded: list[bool] = []
    for _, left in kills(installed(tmp_path / "droplet"), "release", "1.0.0", every=3):
        recorded.append(bool(state.load(left.paths).kept))
        assert stackctl(left, "boot")[0] == 0
        assert stackctl(left, "release", "1.0.0")[0] == 0
        assert_one_colour_serves(left)
    assert len(recorded) > 30
    assert {*recorded} == {False, True}


WORD = string.ascii_letters + string.digits + "_"


@given(st.sampled_from(WORD), st.text(WORD + ".-", max_size=127))
def test_docker_tags_are_accepted(first: str, rest: str) -> None:
    assert release.parse(first + rest) == (first + rest, None)


@given(st.text().filter(lambda tag: not re.fullmatch(r"(?a:\w)[\w.-]{0,127}", tag, re.ASCII)))
def test_anything_else_is_refused(tag: str) -> None:
    with pytest.raises(RefusedError):
        release.parse(tag)


@pytest.mark.parametrize("tag", ["1.0.0\n", "a" * 129, "-x", ".x", "x:y", "x@sha256", "ü", ""])
def test_a_bad_tag_is_refused_before_anything_is_looked_at(fresh: Droplet, tag: str) -> None:
    assert stackctl(fresh, "release", "--", tag)[0] == 2
    assert not fresh.ran("docker ")


def test_other() -> None:
    assert (other("blue"), other("green")) == ("green", "blue")


# what no test noticed when it was taken away


def moved(droplet: Droplet, tag: str, version: str) -> None:
    """Somebody pushed another image under a tag that is live. Its label still says the tag."""
    droplet.docker.registry[tag] = version


def declared_anew(droplet: Droplet) -> None:
    droplet.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))


def test_a_converge_brings_in_nothing_that_was_pushed_under_the_live_tag_since(live: Droplet) -> None:
    """It mends what runs. What is new is for a release."""
    moved(live, "1.0.0", "9.9.9")
    declared_anew(live)
    with lock.exclusive(live.paths.lock, "ada's converge", 0):
        holder = lock.holder_of(live.paths.lock)
        assert holder
        code, shown = stackctl(live, "--lock-id", holder.id, "release", "1.0.0")
    assert code == 0, shown
    current = state.load(live.paths).release
    assert current
    assert current.image == f"{REPOSITORY}@sha256:1.0.0"
    assert {container["image"] for container in live.docker.of("bot-green")} == {f"{REPOSITORY}@sha256:1.0.0"}
    assert f"{REPOSITORY}@sha256:1.0.0, which is live" in shown
    assert not live.ran("docker pull")
    # By itself it is a release of what is there now, and is refused, as its label doesn't say the tag.
    assert "says it is version '9.9.9'" in stackctl(live, "release", "1.0.0")[1]


DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(("asked", "code"), [(DIGEST, 0), (OTHER, 2)])
def test_a_digest_is_the_live_one_s_or_refused_when_the_registry_is_gone(live: Droplet, asked: str, code: int) -> None:
    """CI asks for the very image that it built."""
    current = state.load(live.paths)
    assert current.release
    pinned = f"{REPOSITORY}@{DIGEST}"
    live.docker.images[pinned] = live.docker.images[current.release.image]
    there = replace(current.release, image=pinned)
    state.save(live.paths, replace(current.with_colour("blue", there), kept=(there,), worker=there))
    live.docker.registry.clear()
    ended, shown = stackctl(live, "release", f"1.0.0@{asked}")
    assert ended == code, shown
    assert ("cannot pull" in shown) == (code == 2)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_an_undoing_that_the_system_refuses_is_told_and_the_rest_is_undone_all_the_same(
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


def ends_after_the_flip(droplet: Droplet, monkeypatch: pytest.MonkeyPatch, *verb: str) -> float:
    """The seconds from the last time that nginx was pointed elsewhere to the end of what it had pointed to."""
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


def test_what_served_ends_a_second_after_the_flip_at_the_earliest(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGTERM at once resets connections that wait in its backlog. A rollback isn't watched, so it has to wait."""
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


def test_secrets_of_releases_that_are_kept_are_masked_though_the_declared_ones_have_changed(live: Droplet) -> None:
    """A log of the release before still has them. `stackctl` looks for every one of ENVIRONMENT's in what was shown."""
    changed = {name: f"another-{value}" for name, value in ENVIRONMENT.items() if name == "TOKEN"}
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, **changed}))
    live.docker.new_containers = {"web": ENDED}
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 1
    assert re.search(r"\| log of web\d+: \*\*\*$", shown, re.MULTILINE)
    assert "s3cr3t" not in shown
