"""The real Machine runs real programs."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.core import program
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.program import TIMED_OUT, TOO_LONG, Result


def test_a_programs_end_output_and_environment() -> None:
    program = "import os, sys; print(sorted(os.environ)); print('last\\n', file=sys.stderr); sys.exit(3)"
    result = Machine().run([sys.executable, "-c", program], {"LC_ALL": "C.UTF-8", "A": "1"})
    assert (result.code, result.reason) == (3, "last")
    assert result.stdout == "['A', 'LC_ALL']\n"


def test_a_program_that_hangs_ends_with_all_it_started() -> None:
    """A timeout also kills all child processes. Otherwise Compose, a child of `docker`, would keep the pipe open."""
    began = time.monotonic()
    result = Machine().run(["sh", "-c", "echo said; sleep 60 & sleep 60"], timeout=0.2)
    assert time.monotonic() - began < 5
    assert (result.code, result.stdout, result.reason) == (TIMED_OUT, "said\n", "timed out after 0 s")


def test_a_program_that_is_not_there() -> None:
    assert Machine().run(["no-such-program"]) == Result(127, stderr="no-such-program is not installed")


def test_large_input_and_output_go_through_files(tmp_path: Path) -> None:
    given_file, taken = tmp_path / "given", tmp_path / "taken"
    given_file.write_bytes(b"\0\xff a dump\n")
    taken.write_text("what was there before, which is longer")
    result = Machine().run(["sh", "-c", "cat; echo warning >&2"], stdin=given_file, stdout=taken)
    assert taken.read_bytes() == given_file.read_bytes()
    assert result == Result(0, "", "warning\n")


def test_an_output_file_is_readable_only_by_its_owner(tmp_path: Path) -> None:
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
def test_input_and_output_are_regular_files_with_one_name(tmp_path: Path, plant: Callable[[Path, Path], None]) -> None:
    """A link, hard link or FIFO is refused as input, and replaced as output."""
    other, path = tmp_path / "other", tmp_path / "path"
    other.write_text("root's alone")
    plant(path, other)
    with pytest.raises(FailedError, match=r"is a symbolic link|has 2 names|is a FIFO"):
        Machine().run(["cat"], stdin=path)
    assert Machine().run(["echo", "taken"], stdout=path).code == 0
    assert (path.read_text(), other.read_text()) == ("taken\n", "root's alone")


def test_a_container_s_output_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile Redis could send an endless dump, and a full disk would stop PostgreSQL."""
    monkeypatch.setattr(Machine, "free", lambda *_: SPARE + (2 << 20))
    taken = tmp_path / "taken"
    result = Machine().run(["head", "-c", "1M", "/dev/zero"], stdout=taken)
    assert (result.code, taken.stat().st_size) == (0, 1 << 20)
    for command in ("cat /dev/zero", "trap '' XFSZ; cat /dev/zero; true"):
        result = Machine().run(["sh", "-c", command], timeout=20, stdout=taken)
        assert (result.code != 0, taken.stat().st_size) == (True, 2 << 20)
        assert result.reason.startswith(f"no space left on the disk: {taken} needs more than the 2 MiB")


def test_an_output_with_a_maximum_gets_no_more(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    for size, code in ((1000, 0), (1001, TOO_LONG), (999, 0)):
        result = Machine().run(["head", "-c", str(size), "/dev/zero"], stdout=taken, most=1000)
        assert (result.code, taken.stat().st_size) == (code, min(size, 1000)), result
        assert ("taken has more than the 1000 bytes expected" in result.reason) == bool(code)
    assert Machine().run(["sh", "-c", "exit 3"], stdout=taken, most=1000).code == 3


def test_a_conversation_goes_back_and_forth_and_ends_with_the_with(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with Machine().interactive(["sh", "-c", f"cat; touch {ended}"]) as echo:
        assert echo.ask("one\ntwo\nend\n", "end", 5) == ["one", "two"]
        assert echo.ask("end\n", "end", 5) == []
        assert echo.ask("bend\nend\n", "end", 5) == ["bend"]
        assert echo.ask("a\u2028b\x0bc\n\nend\n", "end", 5) == ["a\u2028b\x0bc", ""]
    time.sleep(0.2)
    assert not ended.exists()


def test_standard_error_of_a_conversation_is_no_answer() -> None:
    """The app's functions can write to psql's standard error with `RAISE INFO`, despite `client_min_messages`."""
    with Machine().interactive(["sh", "-c", "echo 'INFO:  x\nforged' >&2; sleep 0.1; cat; echo late >&2"]) as echo:
        assert echo.ask("true\nend\n", "end", 5) == ["true"]


def test_a_partner_that_says_too_much_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackctl.core.program.LONGEST_ANSWER", 1 << 16)
    with Machine().interactive(["yes"]) as chatty, pytest.raises(FailedError, match="larger than"):
        chatty.ask("", "end", 5)


def test_a_conversation_without_an_answer() -> None:
    with (
        Machine().interactive(["sh", "-c", "echo ERROR: no such table >&2"]) as dead,
        pytest.raises(FailedError) as no,
    ):
        dead.ask("SELECT 1;\n", "end", 5)
    assert str(no.value) == "ERROR: no such table"
    with Machine().interactive(["sleep", "60"]) as silent, pytest.raises(FailedError, match="no answer within 0 s"):
        silent.ask("SELECT 1;\n", "end", 0.1)
    with Machine().interactive(["true"]) as gone, pytest.raises(FailedError, match="true ended"):
        gone.ask("x" * (1 << 20), "end", 5)


def test_a_conversation_with_one_who_was_gone_before_the_question() -> None:
    def ask() -> None:
        with Machine().interactive(["sh", "-c", "exec <&-; echo ERROR: no such table >&2; sleep 0.3"]) as deaf:
            time.sleep(0.2)
            deaf.ask("SELECT 1;\n", "end", 5)

    with pytest.raises(FailedError, match="ERROR: no such table"):
        ask()


def test_a_partner_hears_no_more_when_its_caller_is_killed(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    child = os.fork()
    if not child:
        with Machine().interactive(["sh", "-c", f"cat; echo all > {heard}"]) as echo:
            echo.ask("end\n", "end", 5)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 5
    while not heard.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert heard.exists()


def test_without_a_file_a_program_gets_nothing() -> None:
    """A program without an input file gets no input, not even from the caller's terminal."""
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
        assert Machine().run_attached(["sh", "-c", "cat; echo complaint >&2; exit 3"], 5) == 3
    finally:
        os.dup2(former, 0)
        os.close(reading)
        os.close(former)
    assert capfd.readouterr() == ("content", "complaint\n")


def test_an_attached_program_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    late = tmp_path / "late"
    assert Machine().run_attached(["sh", "-c", f"(sleep 0.4; touch {late}) & sleep 60"], 0.1) == TIMED_OUT
    time.sleep(0.5)
    assert not late.exists()


def test_a_program_that_hangs_leaves_in_its_file_what_it_said(tmp_path: Path) -> None:
    result = Machine().run(["sh", "-c", "echo said; sleep 60"], timeout=0.2, stdout=tmp_path / "taken")
    assert (result.code, result.stdout, result.reason) == (TIMED_OUT, "", "timed out after 0 s")
    assert (tmp_path / "taken").read_text() == "said\n"


def test_a_reason_without_words() -> None:
    assert Result(5, " \n", "").reason == "exit 5"


def test_endless_output_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the app may warn without end during an ANALYZE, and psql prints each warning."""
    monkeypatch.setattr(program, "LONGEST_ERRORS", 1000)
    ran = Machine().run(["sh", "-c", "yes warning | head -c 1000000 >&2; echo the error >&2; echo said; exit 3"])
    assert (ran.code, ran.stdout, len(ran.stderr)) == (3, "said\n", 1000)
    assert ran.reason == "the error"
    monkeypatch.setattr(program, "LONGEST_OUTPUT", 1 << 20)
    ran = Machine().run(["yes"], timeout=30)
    assert (ran.code, ran.reason) == (1, "yes printed more than 1 MiB")
    assert len(ran.stdout) < 2 << 20
