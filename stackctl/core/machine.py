"""stackctl's access to the droplet: programs, HTTP, the disk and the clock. Tests replace only the class Machine."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

from stackctl.core import disk, http_client, openat, program
from stackctl.core.program import ENVIRONMENT, TOO_LONG, Conversation, Result


class Machine:
    """The droplet itself."""

    def run(  # noqa: PLR0913 - a program, and where its streams lead
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENVIRONMENT,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        """Run a program and wait for its end. `env` is the program's whole environment.

        `stdin` and `stdout` are files, for data that is too large for memory. Without `stdin`, the program gets no
        input. Without `stdout`, the program's output is in the result. A container may write without end, so the
        program can write at most `most` bytes to `stdout`, and always leaves disk.SPARE free. If the program fails
        because of `most`, the exit code is TOO_LONG.
        """
        room = disk.usable(self.free(stdout.parent)) if stdout else sys.maxsize
        limit = min(room, most)
        # prlimit (util-linux) sets the limit before the program starts. A limit that is set later would not apply to
        # the program's children.
        limited = ["prlimit", f"--fsize={limit}", "--", *argv] if stdout else argv
        with ExitStack() as files:
            given = files.enter_context(_reading(stdin)) if stdin else subprocess.DEVNULL
            taken = files.enter_context(_writing(stdout)) if stdout else subprocess.PIPE
            ran = program.run(limited, env, timeout, given, taken)
        if not stdout or stdout.stat().st_size < limit:
            return ran
        if room < most:
            return ran._replace(code=ran.code or 1, stderr=f"{ran.stderr}\n{disk.full(stdout, room)}")
        if ran.code:
            more = f"{stdout.name} has more than the {most} bytes expected"
            return ran._replace(code=TOO_LONG, stderr=f"{ran.stderr}\n{more}")
        return ran

    def interactive(self, argv: Sequence[str]) -> AbstractContextManager[Conversation]:
        """Start a program that answers questions. The program is killed when the context exits, even on an error."""
        return program.interactive(argv)

    def run_attached(self, argv: Sequence[str], timeout: float) -> int:
        """Run a program with the caller's standard input and output. Return the program's exit code.

        After `timeout` seconds the program is killed, and TIMED_OUT is returned.
        """
        return program.run_attached(argv, timeout)

    def run_shown(self, argv: Sequence[str]) -> int:
        """Run a program, and immediately show its output, made printable. Return the program's exit code."""
        return program.run_shown(argv)

    def prompt(self, question: str) -> str | None:
        """Return what a person types at the terminal, "" after Ctrl-D, or None if there is no terminal."""
        if not sys.stdin.isatty():
            return None
        try:
            return input(question).strip()
        except EOFError:
            print()
            return ""

    def exec(self, argv: Sequence[str]) -> NoReturn:
        """Replace this process with another program, which keeps the caller's terminal."""
        os.execvpe(argv[0], list(argv), ENVIRONMENT)  # noqa: S606 - no shell is the point

    def request_over_socket(
        self,
        unix_socket: Path,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5,
    ) -> tuple[int, bytes]:
        """Send a GET request over a unix socket, or a POST request with `body`.

        Return the status and body of the answer.

        Raises the errors of http_client.
        """
        return http_client.over_socket(unix_socket, target, body, headers or {}, timeout)

    def status_over_socket(self, unix_socket: Path, target: str, timeout: float = 5) -> int:
        """Send a GET request over a unix socket, and return the status of the answer.

        Do not read the body, which may never end.
        """
        return http_client.status_over_socket(unix_socket, target, timeout)

    def request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request to another server. Return the status and body of the answer.

        Raises the errors of http_client.
        """
        return http_client.request(method, url, body, headers)

    def head(self, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Return the status and date (Last-Modified) of an object on another server, without fetching its content."""
        return http_client.head(url, headers)

    def ignore_signals(self) -> None:
        """Ignore SIGTERM and SIGINT from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def free(self, directory: Path) -> int:
        """Return how many bytes may still be written to the disk of this directory."""
        return shutil.disk_usage(directory).free

    def free_inodes(self, directory: Path) -> int:
        """Return how many files may still be created on the disk of this directory."""
        found = os.statvfs(directory)
        return found.f_favail if found.f_files else sys.maxsize  # some file systems, such as btrfs, have no limit

    def disk(self, directory: Path) -> int:
        """Return the number of the device that a directory is on."""
        return directory.stat().st_dev

    def chgrp(self, path: Path, group: str) -> None:
        """Change the group of a file."""
        shutil.chown(path, group=group)

    def peer_certificate(self, address: tuple[str, int], name: str) -> bytes | None:
        """Return the certificate (DER) that a server presents for this name, or None if there is no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the caller only compares the certificate, which may be self-signed
        try:
            with (
                socket.create_connection(address, timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=name) as tls,
            ):
                return tls.getpeercert(binary_form=True)
        except OSError:
            return None

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def architecture(self) -> str:
        """Return the processor's architecture in Docker's words, such as amd64 or arm64."""
        return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)

    def boot_id(self) -> str:
        """Return the ID that the kernel has for the current boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    with openat.directory(path.parent) as there, there.reading(path.name, sys.maxsize) as file:
        yield file


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    with openat.directory(path.parent) as there, there.creating(path.name) as file:
        yield file
