"""Commands as data, and the real Machine with real programs and a real socket."""

import http.server
import os
import socketserver
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stackctl import cli, compose
from stackctl.config import Config
from stackctl.docker import Container
from stackctl.machine import TIMED_OUT, Machine, Result
from stackctl.state import Release

FILE = Path("/opt/bot/app.yaml")
FIXED = "docker compose --ansi never --env-file /dev/null --project-name bot-blue --file /opt/bot/app.yaml"
RELEASE = Release("20251123T120000Z", "1.0.0", "r@sha256:1", "e", None, "now")
CONFIG = Config(
    "bot", "r", 8080, {"blue": "172.31.0.11", "green": "172.31.0.12"}, 1, 1, 1, None, data=True, migrate=True
)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (compose.up("bot-blue", FILE), "up --detach --no-build --pull never"),
        (compose.resume("bot-blue", FILE), "up --detach --no-recreate --no-build --pull never"),
        (compose.migrate("bot-blue", FILE, "bot-migrate-1"), "run --rm --no-deps -T --name bot-migrate-1 migrate"),
    ],
)
def test_compose_commands(argv: list[str], line: str) -> None:
    assert " ".join(argv) == f"{FIXED} {line}"


def test_compose_gets_the_apps_environment_and_ours_and_nothing_else() -> None:
    assert compose.app_environment(CONFIG, "green", RELEASE, {"TOKEN": "$x"}, "hash") == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "STACK_IMAGE": "r@sha256:1",
        "STACK_COLOUR": "green",
        "STACK_ADDRESS": "172.31.0.12",
        "STACK_SHA256": "hash",
        "STACK_RELEASE": "20251123T120000Z",
        "TOKEN": "$x",
    }


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
    assert (result.code, result.stdout, result.reason) == (TIMED_OUT, "said\n", "no end within 0 s")


def test_a_program_that_is_not_there() -> None:
    assert Machine().run(["no-such-program"]) == Result(127, stderr="no-such-program is not installed")


def test_a_reason_without_words() -> None:
    assert Result(5, " \n", "").reason == "exit 5"


class Server(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[object, tuple[str, int]]:  # type: ignore[override]
        return self.socket.accept()[0], ("", 0)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/ready" else 200)
        self.end_headers()
        self.wfile.write(b"body")

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_socket_is_asked_over_http(tmp_path: Path) -> None:
    with Server(str(tmp_path / "s"), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            assert Machine().get(tmp_path / "s", "/health") == (200, b"body")
            assert Machine().get(tmp_path / "s", "/ready")[0] == 503
        finally:
            server.shutdown()
    with pytest.raises(ConnectionRefusedError):
        Machine().get(tmp_path / "s", "/health")


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["stackctl", "status", "--json"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as refused:
        cli.main("bot")
    assert refused.value.code == 2
    assert capsys.readouterr().err == "stackctl: only root may: sudo stackctl status --json\n"
