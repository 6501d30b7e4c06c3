"""Commands as data, and the real Machine with real programs and real servers."""

import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.app import app_env, state
from stackctl.app.state import Release
from stackctl.cli import main
from stackctl.core import http_client, program
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.program import TIMED_OUT, TOO_LONG, Result
from stackctl.services import compose
from stackctl.services.docker import Container
from tests.support.fakes.droplet import installed, stackctl

FILE = Path("/opt/bot/app.yaml")
FIXED = "docker compose --ansi never --env-file /dev/null --project-name bot-blue --file /opt/bot/app.yaml"
RELEASE = Release("20251123T120000Z", "1.0.0", "r@sha256:1", "e", None, "now")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (compose.up("bot-blue", FILE), "up --detach --no-build --pull never"),
        (compose.resume("bot-blue", FILE), "up --detach --no-recreate --no-build --pull never"),
        (compose.one_shot("bot-blue", FILE, "bot-migrate-1"), "run --rm --no-deps -T --name bot-migrate-1 migrate"),
        (
            compose.one_shot("bot-blue", FILE, "bot-schema-1", "schema", "--json"),
            "run --rm --no-deps -T --name bot-schema-1 migrate schema --json",
        ),
    ],
)
def test_compose_commands(argv: list[str], line: str) -> None:
    assert " ".join(argv) == f"{FIXED} {line}"


def test_compose_gets_the_apps_environment_and_ours_and_nothing_else() -> None:
    assert app_env.app_environment(RELEASE, {"TOKEN": "$x"}, "hash", "172.31.0.12", None) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "STACK_IMAGE": "r@sha256:1",
        "STACK_ADDRESS": "172.31.0.12",
        "STACK_SHA256": "hash",
        "STACK_RELEASE": "20251123T120000Z",
        "TOKEN": "$x",
    }


def test_the_worker_has_no_address() -> None:
    env = app_env.app_environment(RELEASE, {"TOKEN": "$x"}, "hash", None, None)
    assert "STACK_ADDRESS" not in env
    assert env["TOKEN"] == "$x"


def test_a_webhook_secret_that_telegram_still_sends_is_handed_on_beside_the_new_one() -> None:
    env = app_env.app_environment(RELEASE, {app_env.SECRET: "new"}, "hash", None, "old")
    assert (env["TELEGRAM_WEBHOOK_SECRET"], env["TELEGRAM_WEBHOOK_SECRET_PREVIOUS"]) == ("new", "old")
    assert app_env.PREVIOUS_SECRET not in app_env.app_environment(RELEASE, {app_env.SECRET: "new"}, "hash", None, None)


PARTS = st.tuples(st.binary(max_size=3), st.binary(max_size=3), st.text("ab", max_size=3))


@given(PARTS, PARTS)
def test_only_equal_stacks_have_equal_hashes(one: tuple[bytes, bytes, str], other: tuple[bytes, bytes, str]) -> None:
    assert (compose.stack_sha256(*one) == compose.stack_sha256(*other)) == (one == other)


@pytest.mark.parametrize(
    ("state", "health", "well", "condition"),
    [
        ("running", "healthy", True, "running, healthy"),
        ("running", None, True, "running"),
        ("running", "starting", False, "running, starting"),
        ("running", "unhealthy", False, "running, unhealthy"),
        ("exited", "unhealthy", False, "exited (exit code 137)"),
        ("restarting", None, False, "restarting"),
    ],
)
def test_when_a_container_is_well(state: str, health: str | None, well: bool, condition: str) -> None:  # noqa: FBT001
    container = Container("id", "image", state, health, 137, 0, {})
    assert (container.well, container.condition) == (well, condition)


@pytest.mark.parametrize(
    ("state", "restarts", "end"),
    [
        ("running", 0, None),
        ("created", 0, None),
        ("running", 1, "web ended by itself, and was started again"),
        ("exited", 0, "web ended by itself (exit code 137)"),
        ("restarting", 2, "web ended by itself (exit code 137)"),
        ("dead", 0, "web ended by itself (exit code 137)"),
    ],
)
def test_when_a_container_has_ended(state: str, restarts: int, end: str | None) -> None:
    container = Container("id", "image", state, None, 137, restarts, {"com.docker.compose.service": "web"})
    assert container.end == end


def test_a_programs_end_output_and_environment() -> None:
    program = "import os, sys; print(sorted(os.environ)); print('last\\n', file=sys.stderr); sys.exit(3)"
    result = Machine().run([sys.executable, "-c", program], {"LC_ALL": "C.UTF-8", "A": "1"})
    assert (result.code, result.reason) == (3, "last")
    assert result.stdout == "['A', 'LC_ALL']\n"


def test_a_program_that_hangs_ends_with_all_it_started() -> None:
    """docker is killed, and Compose, its child, would hold the pipe open."""
    began = time.monotonic()
    result = Machine().run(["sh", "-c", "echo said; sleep 60 & sleep 60"], timeout=0.2)
    assert time.monotonic() - began < 5
    assert (result.code, result.stdout, result.reason) == (TIMED_OUT, "said\n", "timed out after 0 s")


def test_a_program_that_is_not_there() -> None:
    assert Machine().run(["no-such-program"]) == Result(127, stderr="no-such-program is not installed")


def test_what_is_too_large_to_hold_goes_through_files(tmp_path: Path) -> None:
    given_file, taken = tmp_path / "given", tmp_path / "taken"
    given_file.write_bytes(b"\0\xff a dump\n")
    taken.write_text("what was there before, which is longer")
    result = Machine().run(["sh", "-c", "cat; echo warning >&2"], stdin=given_file, stdout=taken)
    assert taken.read_bytes() == given_file.read_bytes()
    assert result == Result(0, "", "warning\n")


def test_what_goes_into_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        Machine().run(["true"], stdout=tmp_path / "taken")
    finally:
        os.umask(former)
    assert (tmp_path / "taken").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "plant",
    [
        lambda path, other: path.symlink_to(other),
        lambda path, other: path.hardlink_to(other),
        lambda path, _: os.mkfifo(path),
    ],
    ids=["link", "hard link", "fifo"],
)
def test_what_is_given_and_taken_is_a_file_of_its_own(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """Whatever lies at its name."""
    other, path = tmp_path / "other", tmp_path / "path"
    other.write_text("root's alone")
    plant(path, other)
    with pytest.raises(FailedError, match=r"is a symbolic link|has 2 names|is a FIFO"):
        Machine().run(["cat"], stdin=path)
    assert Machine().run(["echo", "taken"], stdout=path).code == 0
    assert (path.read_text(), other.read_text()) == ("taken\n", "root's alone")


def test_what_a_container_says_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that somebody broke into never ends its dump: a full disk would stop PostgreSQL."""
    monkeypatch.setattr(Machine, "free", lambda *_: SPARE + (2 << 20))
    taken = tmp_path / "taken"
    result = Machine().run(["head", "-c", "1M", "/dev/zero"], stdout=taken)
    assert (result.code, taken.stat().st_size) == (0, 1 << 20)
    for command in ("cat /dev/zero", "trap '' XFSZ; cat /dev/zero; true"):
        result = Machine().run(["sh", "-c", command], timeout=20, stdout=taken)
        assert (result.code != 0, taken.stat().st_size) == (True, 2 << 20)
        assert result.reason.startswith(f"no space left on the disk: {taken} needs more than the 2 MiB")


def test_what_is_to_have_a_size_gets_no_more(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    for size, code in ((1000, 0), (1001, TOO_LONG), (999, 0)):
        result = Machine().run(["head", "-c", str(size), "/dev/zero"], stdout=taken, most=1000)
        assert (result.code, taken.stat().st_size) == (code, min(size, 1000)), result
        assert ("taken has more than the 1000 bytes expected" in result.reason) == bool(code)
    assert Machine().run(["sh", "-c", "exit 3"], stdout=taken, most=1000).code == 3


def test_a_conversation_goes_back_and_forth_and_ends_with_the_with(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with Machine().conversation(["sh", "-c", f"cat; touch {ended}"]) as echo:
        assert echo.ask("one\ntwo\nend\n", "end", 5) == ["one", "two"]
        assert echo.ask("end\n", "end", 5) == []
        assert echo.ask("bend\nend\n", "end", 5) == ["bend"]
        assert echo.ask("a\u2028b\x0bc\n\nend\n", "end", 5) == ["a\u2028b\x0bc", ""]
    time.sleep(0.2)
    assert not ended.exists()


@pytest.mark.parametrize(("typed", "answer"), [("the id \n", "the id"), ("\n", ""), ("", "")])
def test_what_is_typed_may_be_nothing(monkeypatch: pytest.MonkeyPatch, typed: str, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(typed))
    assert Machine().answer("Which? ") is None, "there is no terminal"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert Machine().answer("Which? ") == answer


def test_what_a_partner_says_on_standard_error_is_no_answer() -> None:
    """RAISE INFO in a function of the app's reaches psql's standard error whatever client_min_messages says."""
    with Machine().conversation(["sh", "-c", "echo 'INFO:  x\nforged' >&2; sleep 0.1; cat; echo late >&2"]) as echo:
        assert echo.ask("true\nend\n", "end", 5) == ["true"]


def test_a_partner_that_says_too_much_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackctl.core.program.LONGEST_ANSWER", 1 << 16)
    with Machine().conversation(["yes"]) as chatty, pytest.raises(FailedError, match="more than"):
        chatty.ask("", "end", 5)


def test_a_conversation_without_an_answer() -> None:
    with (
        Machine().conversation(["sh", "-c", "echo ERROR: no such table >&2"]) as dead,
        pytest.raises(FailedError) as no,
    ):
        dead.ask("SELECT 1;\n", "end", 5)
    assert str(no.value) == "ERROR: no such table"
    with Machine().conversation(["sleep", "60"]) as silent, pytest.raises(FailedError, match="no answer within 0 s"):
        silent.ask("SELECT 1;\n", "end", 0.1)
    with Machine().conversation(["true"]) as gone, pytest.raises(FailedError, match="true ended"):
        gone.ask("x" * (1 << 20), "end", 5)


def test_a_conversation_with_one_who_was_gone_before_the_question() -> None:
    def ask() -> None:
        with Machine().conversation(["sh", "-c", "exec <&-; echo ERROR: no such table >&2; sleep 0.3"]) as deaf:
            time.sleep(0.2)
            deaf.ask("SELECT 1;\n", "end", 5)

    with pytest.raises(FailedError, match="ERROR: no such table"):
        ask()


def test_a_partner_hears_no_more_when_its_caller_is_killed(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    child = os.fork()
    if not child:
        with Machine().conversation(["sh", "-c", f"cat; echo all > {heard}"]) as echo:
            echo.ask("end\n", "end", 5)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 5
    while not heard.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert heard.exists()


def test_without_a_file_a_program_gets_nothing() -> None:
    """Nor what is typed on the caller's terminal meanwhile."""
    former, (reading, writing) = os.dup(0), os.pipe()
    os.write(writing, b"typed")
    os.close(writing)
    os.dup2(reading, 0)
    try:
        assert Machine().run(["cat"], timeout=5) == Result(0)
    finally:
        os.dup2(former, 0)
        os.close(reading)
        os.close(former)


def test_an_attached_program_has_the_callers_input_and_output(capfd: pytest.CaptureFixture[str]) -> None:
    former, (reading, writing) = os.dup(0), os.pipe()
    os.write(writing, b"content")
    os.close(writing)
    os.dup2(reading, 0)
    try:
        assert Machine().attached(["sh", "-c", "cat; echo complaint >&2; exit 3"], 5) == 3
    finally:
        os.dup2(former, 0)
        os.close(reading)
        os.close(former)
    assert capfd.readouterr() == ("content", "complaint\n")


def test_an_attached_program_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    late = tmp_path / "late"
    assert Machine().attached(["sh", "-c", f"(sleep 0.4; touch {late}) & sleep 60"], 0.1) == TIMED_OUT
    time.sleep(0.5)
    assert not late.exists()


def test_a_program_that_hangs_leaves_in_its_file_what_it_said(tmp_path: Path) -> None:
    result = Machine().run(["sh", "-c", "echo said; sleep 60"], timeout=0.2, stdout=tmp_path / "taken")
    assert (result.code, result.stdout, result.reason) == (TIMED_OUT, "", "timed out after 0 s")
    assert (tmp_path / "taken").read_text() == "said\n"


def test_a_reason_without_words() -> None:
    assert Result(5, " \n", "").reason == "exit 5"


class Server(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[object, tuple[str, int]]:  # type: ignore[override]
        return self.socket.accept()[0], ("", 0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Says what it was sent."""

    def do_GET(self) -> None:
        if self.path == "/endless":
            self.answer(200, b"x" * (http_client.MOST_BYTES + 1))
            return
        if self.path == "/slow":
            self.trickle()
            return
        if self.path == "/stream":
            self.send_response(200)
            self.end_headers()
            self.trickle()
            return
        self.answer(503 if self.path == "/ready" else 200, b"body")

    def do_POST(self) -> None:
        sent = {
            **{"path": self.path, "type": self.headers["Content-Type"], "secret": self.headers["X-Secret"]},
            "body": self.rfile.read(int(self.headers["Content-Length"])).decode(),
        }
        self.answer(401 if self.path == "/refused" else 200, json.dumps(sent).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def trickle(self) -> None:
        """A byte now and then, each of them sooner than a read would give up."""
        with suppress(OSError):
            for _ in range(20):
                self.wfile.write(b"H")
                time.sleep(0.1)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def test_a_status_is_told_whatever_body_comes_with_it(tmp_path: Path) -> None:
    """Server-sent events, or a page that is larger than what is read of an answer."""
    with serving(Server(str(tmp_path / "s"), Handler)):
        for path, status in (("/stream", 200), ("/endless", 200), ("/ready", 503)):
            assert Machine().status(tmp_path / "s", path, timeout=1) == status
        with pytest.raises(OSError, match="larger than"):
            Machine().ask(tmp_path / "s", "/endless")
        with pytest.raises(OSError):  # noqa: PT011 - whichever comes first
            Machine().ask(tmp_path / "s", "/stream", timeout=1)


def test_a_socket_is_asked_over_http(tmp_path: Path) -> None:
    with serving(Server(str(tmp_path / "s"), Handler)):
        assert Machine().ask(tmp_path / "s", "/health") == (200, b"body")
        assert Machine().ask(tmp_path / "s", "/ready")[0] == 503
    with pytest.raises(ConnectionRefusedError):
        Machine().ask(tmp_path / "s", "/health")


@pytest.mark.parametrize("body", [b'{"update_id": 0}', b""])
def test_a_socket_is_sent_a_body_with_its_headers(tmp_path: Path, body: bytes) -> None:
    headers = {"X-Secret": "s", "Content-Type": "application/json"}
    with serving(Server(str(tmp_path / "s"), Handler)):
        status, answer = Machine().ask(tmp_path / "s", "/webhook", body, headers)
        assert Machine().ask(tmp_path / "s", "/refused", body)[0] == 401
    sent = {"path": "/webhook", "type": "application/json", "secret": "s", "body": body.decode()}
    assert (status, json.loads(answer)) == (200, sent)


def test_another_server_is_sent_a_body_with_its_headers() -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
    url, headers = f"http://127.0.0.1:{server.server_address[1]}", {"Content-Type": "application/json"}
    with serving(server):
        status, answer = Machine().request("POST", f"{url}/bot1:A/setWebhook", b"{}", headers)
        assert Machine().request("POST", f"{url}/refused", b"{}", headers)[0] == 401
    sent = json.loads(answer)
    assert (status, sent["path"]) == (200, "/bot1:A/setWebhook")
    assert (sent["type"], sent["body"]) == ("application/json", "{}")
    with pytest.raises(ConnectionRefusedError):
        Machine().request("POST", url, b"", {})


def test_an_app_that_answers_without_end_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    """It is a container, and root asks it."""
    with serving(Server(str(tmp_path / "s"), Handler)):
        with pytest.raises(OSError, match="larger than 4 MiB"):
            Machine().ask(tmp_path / "s", "/endless")
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer within 1 s"):
            Machine().ask(tmp_path / "s", "/slow", timeout=1)
        assert time.monotonic() - began < 5


def test_what_is_free_of_a_disk_is_no_more_than_it_has(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert 0 < Machine().free(tmp_path) < disk.f_blocks * disk.f_frsize


def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_behind_the_shield_a_signal_interrupts_nothing(number: signal.Signals) -> None:
    former = {known: signal.signal(known, interrupted) for known in (signal.SIGTERM, signal.SIGINT)}
    try:
        Machine().shield()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    finally:
        for known, handler in former.items():
            signal.signal(known, handler)


@pytest.mark.parametrize("verb", [["status"], ["boot"], ["release", "1.0.0"]])
def test_a_fault_of_our_own_needs_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    """Whoever follows a release hears of it; the traceback is in the journal."""

    def faulty(*_arguments: object) -> None:
        raise ZeroDivisionError("by nought")

    droplet = installed(tmp_path)
    monkeypatch.setattr(state, "load", faulty)
    code, shown = stackctl(droplet, *verb)
    assert code == 4
    assert "a fault of stackctl's own (ZeroDivisionError('by nought'))" in shown.splitlines()[-1]
    assert "Traceback" in capsys.readouterr().err


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["stackctl", "status", "--json"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as refused:
        main.main("bot")
    assert refused.value.code == 2
    assert capsys.readouterr().err == "stackctl: only root may: sudo stackctl status --json\n"


def test_what_a_program_prints_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the app's may warn without end while its index is analyzed, and psql repeats each warning."""
    monkeypatch.setattr(program, "LONGEST_ERRORS", 1000)
    ran = Machine().run(["sh", "-c", "yes warning | head -c 1000000 >&2; echo the error >&2; echo said; exit 3"])
    assert (ran.code, ran.stdout, len(ran.stderr)) == (3, "said\n", 1000)
    assert ran.reason == "the error"
    monkeypatch.setattr(program, "LONGEST_OUTPUT", 1 << 20)
    ran = Machine().run(["yes"], timeout=30)
    assert (ran.code, ran.reason) == (1, "it printed more than 1 MiB")
    assert len(ran.stdout) < 2 << 20
