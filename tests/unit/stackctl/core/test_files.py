"""What stackctl keeps in files: state, environments, its configuration, history."""

import json
import os
import re
import resource
import stat
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackctl.app import app_env, state
from stackctl.app.state import Release, Revision, State, Webhook
from stackctl.core import config, durable, events, history, names, openat, redact
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.machine import Machine
from stackctl.core.paths import COLOURS, Paths
from stackctl.core.program import ENVIRONMENT
from tests.support.fakes.droplet import CONFIG, Droplet, installed, stackctl
from tests.support.power import Disk

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda name: not app_env.problem({name: ""}))
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
ENVIRONMENTS = st.dictionaries(NAMES, VALUES, max_size=5)
TAGS = st.from_regex(re.compile(names.TAG, re.ASCII), fullmatch=True)
RELEASES = st.builds(Release, TEXT, TAGS, TEXT, TEXT, st.none() | TEXT, TEXT)
COLOUR = st.none() | RELEASES
STATES = st.builds(
    State,
    st.sampled_from([None, *COLOURS]),
    COLOUR,
    st.booleans(),
    st.fixed_dictionaries(dict.fromkeys(COLOURS, COLOUR)),
    st.lists(RELEASES, max_size=3).map(tuple),
    st.lists(st.builds(Revision, TEXT, TEXT), max_size=3).map(tuple),
    st.none() | st.builds(Webhook, TEXT, TEXT),
)
LIVE = Release("20251123T120000Z", "1.0.0", "r@sha256:1", "e", None, "2025-11-23T12:00:00+00:00")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths("bot", tmp_path)
    for directory in (paths.var, paths.secrets):
        directory.mkdir(parents=True)
    return paths


# state


@settings(max_examples=50)
@given(STATES)
def test_a_state_comes_back_as_it_was(before: State) -> None:
    assert State.from_json(before.to_json()) == before


def test_the_state_has_the_contracts_shape() -> None:
    document = json.loads(State(active="blue").with_colour("blue", LIVE).to_json())
    assert document == {
        "version": 1,
        "active": "blue",
        "worker": None,
        "maintenance": False,
        "colours": {
            "blue": {
                **{"id": "20251123T120000Z", "tag": "1.0.0", "image": "r@sha256:1", "env_sha256": "e", "schema": None},
                "since": "2025-11-23T12:00:00+00:00",
            },
            "green": None,
        },
        "kept": [],
        "revisions": [],
        "webhook": None,
        "left": [],
    }


def test_a_state_of_before_rollbacks_were_remembered_still_loads() -> None:
    before = State(active="blue", worker=LIVE, kept=(LIVE,)).with_colour("blue", LIVE)
    document = json.loads(before.to_json())
    del document["left"]
    assert State.from_json(json.dumps(document)) == before


def test_a_state_of_before_releases_were_kept_still_loads() -> None:
    before = State(active="blue", worker=LIVE).with_colour("blue", LIVE)
    document = json.loads(before.to_json())
    for key in ("kept", "revisions", "webhook"):
        del document[key]
    assert State.from_json(json.dumps(document)) == before


KINDS_OF_RELEASE = st.tuples(*[st.sampled_from("ab")] * 3)
"""Tag, image and environment."""


@settings(max_examples=50)
@given(STATES, st.lists(KINDS_OF_RELEASE, min_size=1, max_size=12), st.integers(1, 3))
def test_what_serves_is_kept_once_and_before_the_newest_others(
    before: State, served: list[tuple[str, str, str]], most: int
) -> None:
    """One that is the same but for its id and its time takes the other's place."""
    after = replace(before, kept=())
    for number, (tag, image, env) in enumerate(served):
        release = replace(LIVE, id=str(number), tag=tag, image=image, env_sha256=env, since=str(number))
        after = after.serving("green", release, most)
    newest_first = list(dict.fromkeys(reversed(served)))
    assert [(known.tag, known.image, known.env_sha256) for known in after.kept] == newest_first[:most]
    assert [int(known.id) for known in after.kept] == sorted((int(known.id) for known in after.kept), reverse=True)
    assert after.kept[0].id == str(len(served) - 1)
    assert (after.release, after.active) == (after.kept[0], "green")
    assert (after.colours["blue"], after.worker) == (before.colours["blue"], before.worker)


def test_the_recorded_colour_is_the_colour_of_what_was_recorded_last() -> None:
    """Whichever is active: a release is recorded when all is done, well after the flip."""
    recorded = State().serving("blue", LIVE, 3)
    assert (State(active="blue").recorded_colour, recorded.recorded_colour) == (None, "blue")
    amid = replace(recorded.with_colour("green", replace(LIVE, id="later")), active="green")
    assert amid.recorded_colour == "blue"
    assert amid.serving("green", replace(LIVE, id="later", tag="1.1.0"), 3).recorded_colour == "green"
    assert recorded.with_colour("blue", None).recorded_colour is None


def test_maintenance_is_whether_nginx_finds_the_flag(paths: Paths) -> None:
    state.save(paths, State(maintenance=True))
    assert not state.load(paths).maintenance
    paths.maintenance.touch()
    assert state.load(paths).maintenance


def test_the_link_is_the_truth(paths: Paths) -> None:
    state.save(paths, State(active="blue").with_colour("blue", LIVE))
    assert state.load(paths).active is None
    state.activate(paths, "green")
    assert state.load(paths).active == "green"
    assert paths.active.readlink() == Path("green.sock")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"version": 2}', State().to_json().replace("null", "7")),
        *(State().to_json().replace(f'"{key}": []', f'"{key}": [7]') for key in ("kept", "revisions")),
        State().to_json().replace('"webhook": null', '"webhook": {"url": "x"}'),
        State().to_json().replace('"blue"', '"red"'),
        State().to_json().replace('"left"', '"lost"'),
    ],
)
def test_a_broken_state_says_so(paths: Paths, content: str) -> None:
    paths.state.write_text(content)
    with pytest.raises(FailedError, match=r"state\.json can't be read"):
        state.load(paths)


def test_a_link_to_no_socket_says_so(paths: Paths) -> None:
    paths.active.symlink_to("elsewhere")
    with pytest.raises(FailedError, match="no colour's socket"):
        state.load(paths)


class Power(BaseException):
    """It went."""


NEW = b"new" * 50_000


def openat_write(path: Path) -> None:
    with openat.directory(path.parent) as directory:
        directory.write(path.name, NEW)


def openat_copy(path: Path) -> None:
    with openat.directory(path.parent) as directory, openat.directory(path.parent / "source") as source:
        directory.copy("fresh", source, "original", len(NEW))
        directory.rename("fresh", path.name)


def openat_remove(path: Path) -> None:
    with openat.directory(path.parent) as directory:
        directory.remove(path.name)


@pytest.mark.parametrize(
    ("act", "becomes"),
    [
        (lambda path: durable.write(path, NEW), NEW),
        (openat_write, NEW),
        (openat_copy, NEW),
        (lambda path: durable.link(path, "new"), b"new"),
        (durable.remove, None),
        (openat_remove, None),
        (lambda path: durable.rename(path.with_name("finished"), path), NEW),
    ],
    ids=["write", "openat write", "openat copy", "link", "remove", "openat remove", "rename"],
)
def test_when_the_power_goes_a_file_is_the_old_or_the_new_one_and_the_new_one_once_that_is_told(
    tmp_path: Path, act: Callable[[Path], None], becomes: bytes | None
) -> None:
    """At each moment: a file is on the disk before it has its name, and its name before anybody goes on.

    The old one is not written to: a program that has it open reads on.
    """
    path, old = tmp_path / "file", b"old" * 50_000
    path.write_bytes(old)
    (tmp_path / "finished").write_bytes(NEW)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/original").write_bytes(NEW)
    disk, seen = Disk(tmp_path), set[bytes | None]()
    with path.open("rb") as reader:
        with disk.watching(lambda: seen.update(disk.after_a_cut(path))):
            act(path)
        assert reader.read() == old
    assert seen == {old, becomes}
    assert disk.after_a_cut(path) == {becomes}


def test_a_power_cut_is_seen_where_nothing_was_synced(tmp_path: Path) -> None:
    """The control: what is written to a file is not there yet, and neither is a name."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk = Disk(tmp_path)
    (tmp_path / "file.new").write_bytes(b"new")
    (tmp_path / "file.new").replace(path)
    assert disk.after_a_cut(path) == {b"old", b""}
    with path.open("rb") as file:
        disk._keep(file.fileno())
    assert disk.after_a_cut(path) == {b"old", b"new"}


@pytest.mark.parametrize("act", [lambda path: durable.write(path, NEW), lambda path: durable.link(path, "new")])
def test_cut_short_anywhere_the_same_again_goes_through(tmp_path: Path, act: Callable[[Path], None]) -> None:
    """What an earlier try left is in nobody's way."""
    path, cuts = tmp_path / "file", 0
    for cut in range(20):
        left = [cut]

        def cutting(real: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] == -1:
                    raise Power
                return real(*arguments, **named)

            return call

        with pytest.MonkeyPatch.context() as patched:
            for name in ("open", "fsync", "replace", "unlink", "symlink"):
                patched.setattr(os, name, cutting(getattr(os, name)))
            try:
                act(path)
            except Power:
                cuts += 1
        act(path)
        path.unlink()
    assert cuts >= 4


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
def test_only_root_reads_what_is_written_unless_it_is_meant_for_others(tmp_path: Path, umask: int) -> None:
    """Whatever the caller's umask is."""
    former = os.umask(umask)
    try:
        durable.write(tmp_path / "secret", b"x")
        durable.write(tmp_path / "flag", b"", 0o644)
    finally:
        os.umask(former)
    assert (mode(tmp_path / "secret"), mode(tmp_path / "flag")) == (0o600, 0o644)


# environment


@settings(max_examples=50)
@given(ENVIRONMENTS)
def test_an_environment_survives_byte_for_byte(before: dict[str, str]) -> None:
    spelt = app_env.canonical(before)
    assert json.loads(spelt) == before
    assert app_env.canonical(dict(reversed(before.items()))) == spelt


@settings(max_examples=50)
@given(ENVIRONMENTS, ENVIRONMENTS)
def test_only_equal_environments_have_equal_fingerprints(one: dict[str, str], other: dict[str, str]) -> None:
    assert (app_env.env_sha256(one) == app_env.env_sha256(other)) == (one == other)


def test_an_environment_is_loaded_from_where_it_was_written(paths: Paths) -> None:
    values = {"A": "spaces $ # ' \" % \\ ü\n"}
    durable.write(paths.next_environment, app_env.canonical(values))
    assert app_env.load(paths.next_environment) == values


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([], "must be an object"),
        ({"A B": ""}, "'A B' is no name"),
        ({"A=": ""}, "'A=' is no name"),
        ({"": ""}, "'' is no name"),
        ({"COMPOSE_FILE": "s3cret"}, "COMPOSE_FILE would steer docker"),
        ({"DOCKER_HOST": "s3cret"}, "DOCKER_HOST would steer docker"),
        ({"STACK_IMAGE": "s3cret"}, "STACK_IMAGE would steer docker"),
        ({"LD_PRELOAD": "s3cret"}, "LD_PRELOAD would steer docker"),
        ({"PATH": "s3cret"}, "PATH would steer docker"),
        ({"A": 1}, "A must be text"),
        ({"A": "s3cret\0"}, "A has characters"),
        ({"A": "s3cret\ud800"}, "A has characters"),
        ({"A": "s3cret" + "ü" * app_env.LONGEST}, f"A is too long: Linux takes {32 * 4096} bytes"),
    ],
)
def test_what_no_app_can_have_is_refused_by_name(paths: Paths, values: Any, fault: str) -> None:
    paths.next_environment.write_text(json.dumps(values))
    with pytest.raises(RefusedError, match=fault) as refused:
        app_env.load(paths.next_environment)
    assert "s3cret" not in str(refused.value)


def test_the_longest_value_that_is_taken_is_the_longest_that_linux_takes() -> None:
    """execve(2): MAX_ARG_STRLEN."""
    longest = "x" * (app_env.LONGEST - len("A=") - 1)
    assert app_env.problem({"A": longest}) is None
    assert Machine().run(["true"], env={"A": longest, **ENVIRONMENT}).code == 0
    assert app_env.problem({"A": f"{longest}x"})
    with pytest.raises(FailedError, match=r"environment is too large [(]execve[(]2[)][)], A the largest of it"):
        Machine().run(["true"], env={"A": f"{longest}x", **ENVIRONMENT})


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=redact.SHORTEST_SECRET, max_size=30))
def test_a_value_is_masked_in_every_spelling(secret: str) -> None:
    for spelling in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    ):
        assert redact.mask(f"<{spelling}>", redact.spellings([secret])) == "<***>"


@pytest.mark.parametrize("said", ["p%40ss w", "p@ss w", "-----KEY-----", "postgresql://bot:p%40ss w@db/x"])
def test_parts_of_values_are_masked(said: str) -> None:
    secrets = redact.spellings(["postgresql://bot:p%40ss w@db/x", "-----KEY-----\nabcdefgh\n"])
    assert redact.mask(f"error: {said}!", secrets) == "error: ***!"


# config


DATA = CONFIG["data"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 2}, "version must be 1, is 2"),
        ({"repositry": "x"}, "repositry is unknown"),
        ({"watch": "30"}, "watch must be a whole number"),
        ({"watch": True}, "watch must be a whole number"),
        ({"stop_grace": 0}, "stop_grace must be a whole number above 0"),
        ({"repository": ""}, "repository must be text"),
        ({"app": "other"}, "app must be 'bot'"),
        *(({key: 0}, f"{key} must be a whole number above 0") for key in ("worker_grace", "watch", "connections")),
        *(({key: "3"}, f"{key} must be a whole number above 0") for key in ("worker_grace", "watch", "connections")),
        ({"migrate": None}, "migrate must be true or false"),
        ({"worker": 1}, "worker must be true or false"),
        ({"ready_path": None}, "ready_path must be a path that begins with /"),
        ({"ready_path": "ready"}, "ready_path must be a path that begins with /"),
        ({"version_path": ""}, "version_path must be null or a path that begins with /"),
        ({"webhook_path": "https://x/"}, "webhook_path must be null or a path that begins with /"),
        ({"data": True}, "data must be null or an object"),
        ({"data": {"database": "app", "owner": "owner"}}, "data.backup_memory_mib is missing, data.major is missing"),
        ({"data": DATA | {"owner": ""}}, "data.owner must be text that is not empty"),
        ({"data": DATA | {"major": "17"}}, "data.major must be a whole number above 0"),
        ({"data": DATA | {"backup_memory_mib": 0}}, "data.backup_memory_mib must be a whole number above 0"),
        ({"data": DATA | {"port": 1}}, "data.port is unknown"),
        ({"colours": {"blue": "172.31.0.11"}}, "colours must be an address for blue and one for green"),
        ({"colours": {"blue": "", "green": "172.31.0.12"}}, "colours.blue must be text that is not empty"),
        ({"certificate": {"domain": "x"}}, "certificate.email is missing, certificate.server is missing"),
        (
            {"certificate": {"domain": "x", "server": "https://x", "email": ""}},
            "certificate.email must be text that is not empty",
        ),
        ({"watch": 0, "worker": 1}, "watch must be a whole number above 0, worker must be true or false"),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(paths: Paths, change: dict[str, Any], fault: str) -> None:
    paths.config.write_text(json.dumps(CONFIG | change))
    with pytest.raises(RefusedError, match=fault):
        config.load(paths)


@pytest.mark.parametrize("key", [key for key in CONFIG if key != "version"])
def test_a_missing_key_is_named(paths: Paths, key: str) -> None:
    paths.config.write_text(json.dumps({k: v for k, v in CONFIG.items() if k != key}))
    with pytest.raises(RefusedError, match=f"{key} is missing"):
        config.load(paths)


def test_the_configuration_as_declared(paths: Paths) -> None:
    certificate = {"domain": "bot.lab.test", "server": "https://acme", "email": "ops@lab.test"}
    paths.config.write_text(json.dumps(CONFIG | {"certificate": certificate, "migrate": False}))
    loaded = config.load(paths)
    assert loaded.certificate == config.Certificate("bot.lab.test", "https://acme", "ops@lab.test")
    assert loaded.data == config.Data("app", "owner", 17, 128, "/data")
    assert (loaded.migrate, loaded.worker, loaded.watch) == (False, True, 3)
    assert (loaded.worker_grace, loaded.watch, loaded.connections) == (7, 3, 12)
    assert (loaded.ready_path, loaded.version_path, loaded.webhook_path) == ("/ready", "/health", "/webhook")


@pytest.mark.parametrize("key", ["certificate", "data", "version_path", "webhook_path"])
def test_what_an_app_may_do_without_is_null(paths: Paths, key: str) -> None:
    paths.config.write_text(json.dumps(CONFIG | {key: None}))
    assert getattr(config.load(paths), key) is None


# history


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
    journal = events.Journal(paths.history, "release", machine, out, ["s3cret-value"])

    def pull() -> str:
        machine.seconds += 1.5
        return "s3cret-value"

    def start() -> str:
        raise FailedError("no room: s3cret-value")

    journal.step("pull", pull, "the image")
    with pytest.raises(FailedError):
        journal.step("start", start)
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
    journal = events.Journal(paths.history, "release", machine, out, ["s3cret-value"], "20251123T120000.000Z")
    journal.begin("ada", "1.1.0")
    journal.tell("pull", "progress", "half of it")
    machine.seconds += 2
    journal.end(1, "no room: s3cret-value")
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
    journal = events.Journal(paths.history, "backup", Droplet(paths), StringIO())
    journal.begin("root")
    journal.end(code)
    first, last = told(paths)
    assert (first["message"], first["tag"]) == ("by root", "")
    assert (last["state"], last["code"]) == (ended, code)


def test_a_containers_log_is_an_event_a_line_without_secrets(paths: Paths) -> None:
    """A secret of several lines is masked before it is cut into them."""
    out = StringIO()
    journal = events.Journal(paths.history, "release", Droplet(paths), out, ["one-line\nthe-other"])
    journal.show_log("start", "Traceback:\nkey one-line\nthe-other is bad\n")
    assert [(e["step"], e["state"], e["message"]) for e in told(paths)] == [
        ("start", "log", "Traceback:"),
        ("start", "log", "key *** is bad"),
    ]
    assert out.getvalue() == "    | Traceback:\n    | key *** is bad\n"


def test_a_verb_that_only_looks_leaves_no_history(paths: Paths) -> None:
    out = StringIO()
    journal = events.Journal(None, "status", Droplet(paths), out)
    journal.begin("root")
    journal.end(0)
    assert not paths.history.exists()
    assert len(out.getvalue().splitlines()) == 2


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_history_is_roots_alone(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the caller's umask is, and when it was trimmed, too."""
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


def test_it_is_a_release_that_trims_history_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a run, whoever follows reads from the beginning again; other verbs leave it alone."""
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
def test_what_is_no_event_is_passed_over(line: bytes) -> None:
    assert events.parsed(line) is None


def test_an_event_is_read_as_it_was_told(paths: Paths) -> None:
    events.Journal(paths.history, "release", Droplet(paths), StringIO(), (), "r").tell("pull", "done", 'ü\n"', 5)
    event = events.parsed(paths.history.read_bytes().rstrip())
    assert event
    assert (event["run"], event["op"], event["message"], event["ms"]) == ("r", "release", 'ü\n"', 5)


def test_runs_are_told_whole_though_they_mix_and_some_are_torn_or_trimmed(paths: Paths) -> None:
    def journal(op: str, run: str) -> events.Journal:
        return events.Journal(paths.history, op, Droplet(paths), StringIO(), (), run)

    journal("release", "trimmed").tell("pull", "done")
    release, boot = journal("release", "2"), journal("boot", "3")
    release.begin("ada", "1.1.0")
    release.step("pull", lambda: "the image")
    boot.begin("root")
    with paths.history.open("a") as file:
        file.write('{"run": "2", "op": "release", "st')
    release.tell("release", "start")  # a step of the verb's name begins no run
    release.tell("pull", "undone")
    release.show_log("pull", "a line")
    release.end(1, "no room")
    told_of, begun = history.runs(paths)
    assert [(step["step"], step["state"]) for step in told_of.pop("steps")] == [("pull", "done"), ("pull", "undone")]
    assert told_of == {
        **{"run": "2", "op": "release", "by": "ada", "tag": "1.1.0", "at": "2025-11-23T12:00:00.000+00:00"},
        **{"state": "failed", "code": 1, "ms": 0, "message": "no room"},
    }
    assert (begun["op"], begun["state"], begun["code"]) == ("boot", "unfinished", None)


def test_people_read_the_newest_runs_first(paths: Paths) -> None:
    assert history.text(history.runs(paths)) == "nothing was done here yet"
    for n in range(history.SHOWN + 2):
        journal = events.Journal(paths.history, "release", Droplet(paths), StringIO(), (), str(n))
        journal.begin("ada", f"1.{n}.0")
        journal.step("pull", lambda: "the image")
        journal.end(n % 2, "no room" if n % 2 else "")
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
    journal = events.Journal(paths.history, "release", Droplet(paths), out)
    journal.begin("ada", "1.0.0")
    journal.tell("pull", "start")
    assert out.getvalue().count("Is a directory") == 2


def test_a_line_that_a_full_disk_cuts_off_goes_elsewhere(paths: Paths) -> None:
    paths.unwritten.parent.mkdir(parents=True)
    journal = events.Journal(paths.history, "release", Droplet(paths), StringIO(), spare=paths.unwritten)
    journal.tell("pull", "start")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (paths.history.stat().st_size + 9, hard))
    try:
        journal.tell("pull", "done")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.tell("start", "start")
    told = [line for line in map(events.parsed, paths.history.read_bytes().splitlines()) if line]
    assert [(event["step"], event["state"]) for event in told] == [("pull", "start"), ("start", "start")]
    assert json.loads(paths.unwritten.read_text())["state"] == "done"


def test_a_terminal_that_is_gone_stops_nothing(paths: Paths) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        journal = events.Journal(paths.history, "release", Droplet(paths), out)
        journal.tell("pull", "start")
        journal.tell("pull", "done")
    assert len(paths.history.read_text().splitlines()) == 2
