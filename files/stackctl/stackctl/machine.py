"""The droplet as stackctl meets it: programs, HTTP through a socket, the clock. The only thing that tests replace."""

import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """How a program ended; 124 when it was stopped for taking too long, 127 when there is no such program."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def reason(self) -> str:
        """The last thing it said, one line."""
        return next((line.strip() for line in reversed(self.tail().splitlines()) if line.strip()), f"exit {self.code}")

    def tail(self, lines: int = 20) -> str:
        """The end of what it said; errors come last."""
        return "\n".join(f"{self.stdout}\n{self.stderr}".strip().splitlines()[-lines:])


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes


class Machine:
    """The real one."""

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 60) -> Result:
        """Run a program to its end; `env` is its whole environment, our own when left out. Never raises for the program."""
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as expired:
            said = (expired.stderr or b"").decode(errors="replace")
            return Result(124, (expired.stdout or b"").decode(errors="replace"), f"{said}\nno end within {timeout:.0f} s")
        except FileNotFoundError:
            return Result(127, stderr=f"{argv[0]} is not installed")
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def get(self, unix_socket: Path, target: str, timeout: float = 5) -> Answer:
        """GET over a unix socket. Raises OSError or HTTPException when nothing answers."""
        connection = _UnixConnection("localhost", timeout=timeout)
        connection.unix_socket = unix_socket
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def served_certificate(self, domain: str) -> bytes | None:
        """The certificate (DER) that nginx serves for this name now; None when it serves none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # looked at, not trusted: it may be the placeholder
        try:
            with (
                socket.create_connection(("127.0.0.1", 443), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=domain) as tls,
            ):
                return tls.getpeercert(binary_form=True)
        except OSError:
            return None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _UnixConnection(http.client.HTTPConnection):
    unix_socket: Path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.unix_socket))
