"""The droplet as stackctl meets it: programs, HTTP through a socket, the clock. The only thing that tests replace."""

import errno
import http.client
import os
import select
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

from stackctl.core import openat, postgres_errors
from stackctl.core.errors import FailedError
from stackctl.core.printable import Filter

TIMED_OUT = 124  # as timeout(1) has it
INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
TOO_LONG = 153  # 128 + SIGXFSZ
REQUEST_S = 10
MOST_BYTES = 4 << 20
"""What a container or somebody else's server may answer with."""
LONGEST_SAID = 1 << 16
"""Characters of a program's output that are looked at for what went wrong."""
LONGEST_OUTPUT = 96 << 20
"""Bytes that a program may print for us to hold. The largest that we ask for is a dump's schema (loading.py)."""
LONGEST_ERRORS = 1 << 20
"""Bytes of what it said on standard error that are kept: the last ones."""
LONGEST_ANSWER = 64 << 20
"""Bytes of one answer in a conversation."""
SPARE = 256 << 20
"""Bytes that stay free beside a backup, and what is fetched or restored of one: a full disk stops PostgreSQL."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
"""What programs get, whoever called us: no DOCKER_HOST or language of an operator's shell."""


class Result(NamedTuple):
    """How a program ended; TIMED_OUT when it was stopped for taking too long, 127 when there is no such program."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def reason(self) -> str:
        """Why it failed, in one line: PostgreSQL's error where there is one, else the last thing it said."""
        if error := postgres_errors.reason(self._shown()):
            return error
        return next((line.strip() for line in reversed(self.tail().splitlines()) if line.strip()), f"exit {self.code}")

    def tail(self, lines: int = 20) -> str:
        """The end of what it said; errors come last. No row of PostgreSQL's is in it."""
        return "\n".join(self._shown().splitlines()[-lines:])

    def _shown(self) -> str:
        said = f"{self.stdout}\n{self.stderr}"
        whole = said if len(said) <= LONGEST_SAID else said[-LONGEST_SAID:].partition("\n")[2]
        return postgres_errors.without_rows(whole.strip())


T = TypeVar("T")


def begin(act: Callable[[], T]) -> Callable[[float], T]:
    """Begin `act` beside us. Call the result with a number of seconds for what it returned or raised, or TimeoutError.

    A socket's own timeout is for each read, so a peer that sends a byte now and then would hold us up for ever; and a
    look-up of a name has none at all.
    """
    ended: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            result = act()
        except BaseException as error:  # raised below, where somebody can catch it
            failure = error
            ended.put(lambda: _raise(failure))
        else:
            ended.put(lambda: result)

    def wait(seconds: float) -> T:
        try:
            return ended.get(timeout=max(0.0, seconds))()
        except Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None

    threading.Thread(target=run, daemon=True).start()
    return wait


def _raise(error: BaseException) -> NoReturn:
    raise error


class Conversation:
    """With a program that answers on its standard output, until the `with` ends that began it.

    What it says on standard error is heard only when it ends: nothing in there can pass for an answer.
    """

    def __init__(self, program: str, process: subprocess.Popen[bytes]) -> None:
        self._program, self._process = program, process
        self._errors = b""

    def ask(self, question: str, last: str, timeout: float) -> list[str]:
        """The lines of its answer, up to the line `last`. Raises FailedError with what it said when none comes."""
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101, PT018 - for mypy
        heard, end, deadline = bytearray(b"\n"), f"\n{last}\n".encode(), time.monotonic() + timeout
        with suppress(BrokenPipeError):
            self._process.stdin.write(question.encode())
            self._process.stdin.flush()
        open_ends = [self._process.stdout, self._process.stderr]
        while not heard.endswith(end):
            ready = select.select(open_ends, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                raise FailedError(f"{self._program}: no answer within {timeout:.0f} s")
            for pipe in ready:
                said = os.read(pipe.fileno(), 1 << 16)
                if not said:
                    open_ends.remove(pipe)
                elif pipe is self._process.stderr:
                    self._errors = (self._errors + said)[-LONGEST_SAID:]
                else:
                    heard += said
            if not open_ends:
                said_at_last = self._errors.decode(errors="replace") or f"{self._program} ended"
                raise FailedError(Result(1, stderr=said_at_last).reason)
            if len(heard) > LONGEST_ANSWER:
                raise FailedError(f"{self._program}: its answer has more than {LONGEST_ANSWER >> 20} MiB")
        # Not splitlines, for which U+2028 in a name ends a line, too.
        return heard.decode(errors="replace").removesuffix(f"{last}\n").split("\n")[1:-1]


_FULL = "\nno space left on the disk: {} would take more than the {} MiB that may be used: make room there"


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    with openat.directory(path.parent) as there, there.reading(path.name, sys.maxsize) as file:
        yield file


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    with openat.directory(path.parent) as there, there.creating(path.name) as file:
        yield file


class _Output:
    """What a program prints, held in memory. A function of the app's may warn without end, and psql repeats it."""

    def __init__(self) -> None:
        self.printed, self.errors = bytearray(), bytearray()

    def hear(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        """Until the program ends. Raises subprocess.TimeoutExpired, or _TooMuchError."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for pipe, said in ((process.stdout, self.printed), (process.stderr, self.errors)):
                if pipe:
                    selector.register(pipe, selectors.EVENT_READ, said)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(process.args, timeout)
                for key, _ in ready:
                    part = os.read(key.fd, 1 << 16)
                    key.data.extend(part)
                    if not part:
                        selector.unregister(key.fileobj)
                del self.errors[:-LONGEST_ERRORS]
                if len(self.printed) > LONGEST_OUTPUT:
                    raise _TooMuchError
        process.wait(max(0.0, deadline - time.monotonic()))


class _TooMuchError(Exception):
    pass


def _show(process: subprocess.Popen[bytes]) -> None:
    with selectors.DefaultSelector() as selector:
        for pipe, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            selector.register(pipe, selectors.EVENT_READ, Filter(out))  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                part = os.read(key.fd, 1 << 16)
                key.data.write(part, final=not part)
                if not part:
                    selector.unregister(key.fileobj)


class Machine:
    """The real one."""

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
        """Run a program to its end, however it ends; `env` is its whole environment.

        `stdin` and `stdout` are files, for what is too large to hold; without them it gets nothing, and is listened to.
        What it writes may be a container's word, which has no end: `stdout` gets `most` bytes, and never more than the
        room that there is, but for SPARE. A program that fails at `most` ended by TOO_LONG.
        """
        room = max(0, self.free(stdout.parent) - SPARE) if stdout else sys.maxsize
        limit = min(room, most)
        with ExitStack() as files:
            given = files.enter_context(_reading(stdin)) if stdin else subprocess.DEVNULL
            taken = files.enter_context(_writing(stdout)) if stdout else subprocess.PIPE
            try:
                # In a process group of its own: Compose is docker's child and must end with it, and not by a Ctrl-C.
                # The limit (util-linux's prlimit) has to stand before the program: a child that it starts first would
                # have none.
                limited = ["prlimit", f"--fsize={limit}", "--", *argv] if stdout else argv
                process = subprocess.Popen(
                    limited, stdin=given, stdout=taken, stderr=subprocess.PIPE, env=env, process_group=0
                )
            except FileNotFoundError:
                return Result(127, stderr=f"{argv[0]} is not installed")
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                longest = max(env, key=lambda name: len(env[name]))
                raise FailedError(
                    f"{argv[0]} can't be started: its environment is too large (execve(2)), {longest} the largest of "
                    "it. Next: shorten that in the env file, then make site"
                ) from None
            with process:
                output, code, why = _Output(), 0, ""
                try:
                    output.hear(process, timeout)
                except subprocess.TimeoutExpired:
                    code, why = TIMED_OUT, f"\nno end within {timeout:.0f} s"
                except _TooMuchError:
                    code, why = 1, f"\nit printed more than {LONGEST_OUTPUT >> 20} MiB"
                except BaseException:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    raise
                if why:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        code, printed, errors = code or process.returncode, bytes(output.printed), bytes(output.errors) + why.encode()
        if stdout and stdout.stat().st_size >= limit:
            if room < most:
                code, errors = code or 1, errors + _FULL.format(stdout, room >> 20).encode()
            elif code:
                code, errors = TOO_LONG, errors + f"\n{stdout.name} has more than the {most} bytes expected".encode()
        return Result(code, printed.decode(errors="replace"), errors.decode(errors="replace"))

    @contextmanager
    def conversation(self, argv: Sequence[str]) -> Iterator[Conversation]:
        """A program that reads questions and writes answers. It hears no more of us when we end, however we do."""
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            process_group=0,
        ) as process:
            try:
                yield Conversation(argv[0], process)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                # Closing writes what a question left unread; a partner that is gone had its say in ask.
                with suppress(BrokenPipeError):
                    process.stdin.close()  # type: ignore[union-attr]

    def attached(self, argv: Sequence[str], timeout: float) -> int:
        """Run a program on the caller's own input and output; its exit code, or TIMED_OUT once all of it is killed."""
        with subprocess.Popen(argv, env=ENVIRONMENT, process_group=0) as process:
            try:
                return process.wait(timeout)
            except BaseException as error:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    return TIMED_OUT
                raise

    def shown(self, argv: Sequence[str]) -> int:
        """Run a program, and show what it says made printable, as it comes; its exit code.

        Ctrl-C and a reader that is gone (`| head`) are its ordinary ends.
        """
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            process_group=0,
        ) as process:
            try:
                _show(process)
                return process.wait()
            except KeyboardInterrupt:
                return INTERRUPTED
            except OSError:
                # Python would try to write what is left once more at its own end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def answer(self, question: str) -> str | None:
        """What somebody types at a terminal, be it nothing (Ctrl-D); None where there is none."""
        if not sys.stdin.isatty():
            return None
        try:
            return input(question).strip()
        except EOFError:
            print()
            return ""

    def become(self, argv: Sequence[str]) -> NoReturn:
        """Go on as this program, on the caller's own terminal."""
        os.execvpe(argv[0], list(argv), ENVIRONMENT)  # noqa: S606 - no shell is the point

    def ask(
        self,
        unix_socket: Path,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5,
    ) -> tuple[int, bytes]:
        """Status and body of a GET, or of a POST of `body`, over a unix socket.

        Raises OSError or HTTPException when nothing answers, or too much.
        """
        connection = _connection(unix_socket, timeout)
        method = "GET" if body is None else "POST"
        return begin(lambda: _answer(connection, method, target, body, headers or {}))(timeout)

    def status(self, unix_socket: Path, target: str, timeout: float = 5) -> int:
        """The status of a GET over a unix socket. The body is not read: it may be a stream, or of any length.

        Raises OSError or HTTPException when nothing answers.
        """
        connection = _connection(unix_socket, timeout)
        return begin(lambda: _answer(connection, "GET", target, None, {}, most=0))(timeout)[0]

    def request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of a request to somebody else's server. Raises OSError or HTTPException."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=REQUEST_S)
        return begin(lambda: _answer(connection, method, parts.path, body, headers))(REQUEST_S)

    def head(self, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """The status and the date (Last-Modified) of something on somebody else's server, without it.

        Raises OSError or HTTPException.
        """
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=REQUEST_S)
        return begin(lambda: _dated(connection, parts.path, headers))(REQUEST_S)

    def shield(self) -> None:
        """Let no signal but SIGKILL interrupt what follows."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def free(self, directory: Path) -> int:
        """Bytes that may still be written there."""
        return shutil.disk_usage(directory).free

    def give(self, path: Path, group: str) -> None:
        """Let a group have it."""
        shutil.chown(path, group=group)

    def peer_certificate(self, address: tuple[str, int], name: str) -> bytes | None:
        """Return the certificate (DER) that a server shows for this name, or None if it shows none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # looked at, not trusted: it may be the placeholder
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
        """As Docker names it where it has a name of its own for it: amd64, arm64."""
        return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)

    def boot_id(self) -> str:
        """The same until the next boot."""
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _answer(  # noqa: PLR0913 - a request, and how much of its answer is read
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    most: int = MOST_BYTES + 1,
) -> tuple[int, bytes]:
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        content = response.read(most) if most else b""
    finally:
        connection.close()
    if len(content) > MOST_BYTES:
        raise OSError(errno.EMSGSIZE, f"the answer is larger than {MOST_BYTES >> 20} MiB")
    return response.status, content


def _dated(connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]) -> tuple[int, str]:
    try:
        connection.request("HEAD", target, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.getheader("Last-Modified", "")
    finally:
        connection.close()


def _connection(unix_socket: Path, timeout: float) -> http.client.HTTPConnection:
    connection = _UnixConnection("localhost", timeout=timeout)
    connection.unix_socket = unix_socket
    return connection


class _UnixConnection(http.client.HTTPConnection):
    unix_socket: Path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.unix_socket))
