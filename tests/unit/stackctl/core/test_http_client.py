"""The real Machine sends HTTP requests to real servers."""

import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stackctl.core import http_client
from stackctl.core.machine import Machine


class Server(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[object, tuple[str, int]]:  # type: ignore[override]
        return self.socket.accept()[0], ("", 0)


class Handler(http.server.BaseHTTPRequestHandler):
    """A handler that answers with the request's own content."""

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
        """Send single bytes slowly, each just before a read would time out."""
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


def test_a_status_is_returned_whatever_the_body(tmp_path: Path) -> None:
    """The client returns the status for any body, even for endless events or a page larger than the limit."""
    with serving(Server(str(tmp_path / "s"), Handler)):
        for path, status in (("/stream", 200), ("/endless", 200), ("/ready", 503)):
            assert Machine().status_over_socket(tmp_path / "s", path, timeout=1) == status
        with pytest.raises(OSError, match="larger than"):
            Machine().request_over_socket(tmp_path / "s", "/endless")
        with pytest.raises(OSError):  # noqa: PT011 - whichever comes first
            Machine().request_over_socket(tmp_path / "s", "/stream", timeout=1)


def test_a_socket_is_asked_over_http(tmp_path: Path) -> None:
    with serving(Server(str(tmp_path / "s"), Handler)):
        assert Machine().request_over_socket(tmp_path / "s", "/health") == (200, b"body")
        assert Machine().request_over_socket(tmp_path / "s", "/ready")[0] == 503
    with pytest.raises(ConnectionRefusedError):
        Machine().request_over_socket(tmp_path / "s", "/health")


@pytest.mark.parametrize("body", [b'{"update_id": 0}', b""])
def test_a_socket_is_sent_a_body_with_its_headers(tmp_path: Path, body: bytes) -> None:
    headers = {"X-Secret": "s", "Content-Type": "application/json"}
    with serving(Server(str(tmp_path / "s"), Handler)):
        status, answer = Machine().request_over_socket(tmp_path / "s", "/webhook", body, headers)
        assert Machine().request_over_socket(tmp_path / "s", "/refused", body)[0] == 401
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


def test_an_app_that_answers_without_end_is_cut_off(tmp_path: Path) -> None:
    """root asks the app, which may be hostile, so an endless answer is cut off."""
    with serving(Server(str(tmp_path / "s"), Handler)):
        with pytest.raises(OSError, match="larger than 4 MiB"):
            Machine().request_over_socket(tmp_path / "s", "/endless")
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer within 1 s"):
            Machine().request_over_socket(tmp_path / "s", "/slow", timeout=1)
        assert time.monotonic() - began < 5
