"""HTTP requests with limits on time and size.

All functions raise OSError or HTTPException if the server gives no valid answer.
"""

import errno
import http.client
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from stackctl.core.deadline import begin

REQUEST_S = 10
MOST_BYTES = 4 << 20
"""Largest answer that is accepted from a container or a foreign server."""


def over_socket(
    unix_socket: Path, target: str, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> tuple[int, bytes]:
    """Send a GET request over a unix socket, or a POST request with `body`.

    Return the status and body of the answer.
    """
    connection = _UnixConnection(unix_socket, timeout)
    method = "GET" if body is None else "POST"
    return begin(lambda: _answer(connection, method, target, body, headers))(timeout)


def status_over_socket(unix_socket: Path, target: str, timeout: float) -> int:
    """Send a GET request over a unix socket, and return the status of the answer.

    Do not read the body, which may never end.
    """
    connection = _UnixConnection(unix_socket, timeout)
    return begin(lambda: _head_of_answer(connection, "GET", target, {})[0])(timeout)


def request(
    method: str, url: str, body: bytes, headers: Mapping[str, str], trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """Send a request to another server. Return the status and body of the answer.

    If `trust` is given, its certificate authorities replace those of the system.
    """
    connection, parts = _connection(url, trust)
    return begin(lambda: _answer(connection, method, parts.path, body, headers))(REQUEST_S)


def head(url: str, headers: Mapping[str, str], trust: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Return the status and date (Last-Modified) of an object on another server, without fetching its content."""
    connection, parts = _connection(url, trust)
    return begin(lambda: _head_of_answer(connection, "HEAD", parts.path, headers))(REQUEST_S)


def _connection(url: str, trust: ssl.SSLContext | None) -> tuple[http.client.HTTPConnection, SplitResult]:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.netloc, timeout=REQUEST_S, context=trust), parts
    return http.client.HTTPConnection(parts.netloc, timeout=REQUEST_S), parts


def _answer(
    connection: http.client.HTTPConnection, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        content = response.read(MOST_BYTES + 1)
    finally:
        connection.close()
    if len(content) > MOST_BYTES:
        raise OSError(errno.EMSGSIZE, f"the answer is larger than {MOST_BYTES >> 20} MiB")
    return response.status, content


def _head_of_answer(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str]
) -> tuple[int, str]:
    try:
        connection.request(method, target, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.getheader("Last-Modified", "")
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, unix_socket: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._unix_socket = unix_socket

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._unix_socket))
