"""Runs programs, with limits on their time and output. The rest of stackctl reaches this module through Machine."""

import errno
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple

from stackctl.core import postgres_errors
from stackctl.core.errors import FailedError
from stackctl.core.printable import Filter

TIMED_OUT = 124  # the exit code that timeout(1) uses after a timeout
INTERRUPTED = 130  # the exit code that a shell returns after Ctrl-C: 128 + SIGINT
TOO_LONG = 153  # 128 + SIGXFSZ
LONGEST_SAID = 1 << 16
"""Characters of a program's output that are searched for the cause of its failure."""
LONGEST_OUTPUT = 96 << 20
"""Bytes that a program may print into memory. The longest output that we ask for is the schema of a dump."""
LONGEST_ERRORS = 1 << 20
"""At most this many bytes of standard error are kept, from its end."""
LONGEST_ANSWER = 64 << 20
"""Bytes of one answer in a conversation."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
"""The environment of programs. It takes nothing from the caller, whose shell may set DOCKER_HOST or a locale."""


class Result(NamedTuple):
    """The result of a program. `code` is TIMED_OUT after a timeout, and 127 if the program is not installed."""

    code: int
    stdout: str = ""
    stderr: str = ""

    @property
    def reason(self) -> str:
        """The cause of a failure in one line: the error from PostgreSQL, or else the last line of the output."""
        if error := postgres_errors.reason(self._shown()):
            return error
        return next((line.strip() for line in reversed(self.tail().splitlines()) if line.strip()), f"exit {self.code}")

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the output, with standard error at the end.

        Data from PostgreSQL's rows is removed.
        """
        return "\n".join(self._shown().splitlines()[-lines:])

    def _shown(self) -> str:
        said = f"{self.stdout}\n{self.stderr}"
        whole = said if len(said) <= LONGEST_SAID else said[-LONGEST_SAID:].partition("\n")[2]
        return postgres_errors.without_rows(whole.strip())


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    timeout: float,
    stdin: BinaryIO | int = subprocess.DEVNULL,
    stdout: BinaryIO | int = subprocess.PIPE,
) -> Result:
    """Run a program and wait for its end. `env` is the program's whole environment."""
    try:
        process = _started(argv, env, stdin, stdout)
    except FileNotFoundError:
        return Result(127, stderr=f"{argv[0]} is not installed")
    output, code, why = _Output(), 0, ""
    with process:
        try:
            output.hear(process, timeout)
        except subprocess.TimeoutExpired:
            code, why = TIMED_OUT, f"\ntimed out after {timeout:.0f} s"
        except _TooMuchError:
            code, why = 1, f"\n{argv[0]} printed more than {LONGEST_OUTPUT >> 20} MiB"
        finally:
            if process.returncode is None:
                _kill(process)
    printed, errors = (bytes(said).decode(errors="replace") for said in (output.printed, output.errors))
    return Result(code or process.returncode, printed, errors + why)


def _started(
    argv: Sequence[str], env: Mapping[str, str], stdin: BinaryIO | int, stdout: BinaryIO | int
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own.

    The program and its children, such as Compose below `docker`, are killed together. Ctrl-C does not reach the process
    group.
    """
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=env, process_group=0)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        longest = max(env, key=lambda name: len(env[name]))
        raise FailedError(
            f"{argv[0]} can't be started, because its environment is too large (execve(2)). The largest variable "
            f"is {longest}",
            next_step=f"shorten {longest} in the env file, then make site",
        ) from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a program, if any process of the group is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _Output:
    """The output of a program, in memory and with limits.

    A function of the app may raise warnings without end, and psql prints each warning.
    """

    def __init__(self) -> None:
        self.printed, self.errors = bytearray(), bytearray()

    def hear(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        """Read until the program ends. Raises subprocess.TimeoutExpired, or _TooMuchError."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for pipe, said in ((process.stdout, self.printed), (process.stderr, self.errors)):
                if pipe:
                    selector.register(pipe, selectors.EVENT_READ, said)
            while selector.get_map():
                _read_ready(selector, max(0.0, deadline - time.monotonic()))
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(process.args, timeout)
                del self.errors[:-LONGEST_ERRORS]
                if len(self.printed) > LONGEST_OUTPUT:
                    raise _TooMuchError
        process.wait(max(0.0, deadline - time.monotonic()))


class _TooMuchError(Exception):
    """The program printed more than LONGEST_OUTPUT."""


def _read_ready(selector: selectors.BaseSelector, timeout: float) -> None:
    """Read all pipes that have data, and append the data to the pipe's bytearray. Unregister a pipe that has ended."""
    for key, _ in selector.select(timeout):
        part = os.read(key.fd, 1 << 16)
        key.data.extend(part)
        if not part:
            selector.unregister(key.fileobj)


class Conversation:
    """A program that reads questions and writes an answer to each question.

    The standard error of the program is read only at the end, so that no error message can pass for an answer.
    """

    def __init__(self, program: str, process: subprocess.Popen[bytes]) -> None:
        self._program, self._process = program, process
        self._errors = b""

    def ask(self, question: str, last: str, timeout: float) -> list[str]:
        """Ask a question.

        Return the lines of the program's answer, up to the line `last`. If the program gives no answer, raise
        FailedError.
        """
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101, PT018 - for mypy
        heard, end, deadline = bytearray(b"\n"), f"\n{last}\n".encode(), time.monotonic() + timeout
        with suppress(BrokenPipeError):
            self._process.stdin.write(question.encode())
            self._process.stdin.flush()
        open_pipes = [self._process.stdout, self._process.stderr]
        while not heard.endswith(end):
            ready = select.select(open_pipes, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                raise FailedError(f"{self._program}: no answer within {timeout:.0f} s")
            for pipe in ready:
                if not self._hear(pipe, heard):
                    open_pipes.remove(pipe)
            if not open_pipes:
                said_at_last = self._errors.decode(errors="replace") or f"{self._program} ended"
                raise FailedError(Result(1, stderr=said_at_last).reason)
            if len(heard) > LONGEST_ANSWER:
                raise FailedError(f"{self._program}: the answer is larger than {LONGEST_ANSWER >> 20} MiB")
        # Do not use splitlines(), which would also split at a U+2028 in a name.
        return heard.decode(errors="replace").removesuffix(f"{last}\n").split("\n")[1:-1]

    def _hear(self, pipe: Any, heard: bytearray) -> bool:
        """Read the data that waits in a pipe. Return False at the end of the pipe."""
        said = os.read(pipe.fileno(), 1 << 16)
        if pipe is self._process.stderr:
            self._errors = (self._errors + said)[-LONGEST_SAID:]
        else:
            heard += said
        return bool(said)


@contextmanager
def interactive(argv: Sequence[str]) -> Iterator[Conversation]:
    """Start a program that answers questions. The program is killed when the context exits, even on an error."""
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
            _kill(process)
            # `close` writes the rest of a question. If the program has ended, `close` fails, but `ask` has already
            # reported the cause.
            with suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]


def run_attached(argv: Sequence[str], timeout: float) -> int:
    """Run a program with the caller's standard input and output. Return the program's exit code.

    After `timeout` seconds the program is killed, and TIMED_OUT is returned.
    """
    with subprocess.Popen(argv, env=ENVIRONMENT, process_group=0) as process:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            if process.returncode is None:
                _kill(process)


def run_shown(argv: Sequence[str]) -> int:
    """Run a program, and immediately show its output, made printable. Return the program's exit code.

    If the user presses Ctrl-C, or if the reader of the output ends (`| head`), end the program without an error.
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
            # At its exit, Python would try again to write the rest, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        finally:
            _kill(process)


def _show(process: subprocess.Popen[bytes]) -> None:
    with selectors.DefaultSelector() as selector:
        for pipe, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            selector.register(pipe, selectors.EVENT_READ, Filter(out))  # type: ignore[arg-type]
        while selector.get_map():
            _show_ready(selector)


def _show_ready(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select():
        part = os.read(key.fd, 1 << 16)
        key.data.write(part, final=not part)
        if not part:
            selector.unregister(key.fileobj)
