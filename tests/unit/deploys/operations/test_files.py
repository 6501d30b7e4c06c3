"""A file is written whole, after its handler is marked as pending."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
from base64 import b64encode
from pathlib import Path

import click
import pytest
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.files import FileContents

from deploys.facts.files import FileState
from deploys.operations.files import atomic_file
from tests.support.operations import CONTENT, HANDLER, MARKER, PLACED, droplet, placed


def test_a_file_as_declared_is_left_alone() -> None:
    assert placed({FileState: PLACED}, notify=HANDLER) == []


@pytest.mark.parametrize("difference", [{"mode": "644"}, {"owner": "nobody"}, {"group": "adm"}, {"sha256": "0"}])
def test_a_file_that_differs_is_placed_after_its_handler_is_pending(difference: dict[str, str]) -> None:
    notify, write = placed({FileState: {**PLACED, **difference}}, notify=HANDLER)
    assert notify == f"install -D -m 600 /dev/null {MARKER}"
    assert "mv -fT /etc/x/y.new /etc/x/y" in write


@pytest.mark.parametrize("sent", [b"", b64encode(CONTENT)[:4], b64encode(CONTENT)])
def test_a_file_that_is_cut_short_does_not_take_the_place_of_the_old_one(tmp_path: Path, sent: bytes) -> None:
    """The test gives the droplet's command only a part of the content, as if the operator's machine had died."""
    target = tmp_path / "file"
    target.write_text("old")
    me = getpass.getuser()
    with droplet({FileState: None}):
        (write,) = atomic_file._inner(
            dest=str(target), content=CONTENT, owner=me, group=grp.getgrgid(os.getgid()).gr_name
        )
    subprocess.run(["sh", "-c", str(write)], input=sent, check=False, capture_output=True)
    assert target.read_bytes() == (CONTENT if sent == b64encode(CONTENT) else b"old")


def test_content_travels_on_standard_input_alone() -> None:
    with droplet({FileState: None}):
        (write,) = atomic_file._inner(dest="/etc/x/y", content=CONTENT, secret=True)
    assert write.connector_arguments["_stdin"] == b64encode(CONTENT).decode()
    assert "content" not in str(write)


@pytest.mark.parametrize(
    ("there", "content", "secret", "shown"),
    [
        (["old", "same"], b"new\nsame\n", False, ["- old", "+ new", "  same"]),
        (None, b"new\n", False, ["+ new"]),
        (["\x1b[2J"], b"new\n", False, [r"- \x1b[2J", "+ new"]),
        (["old"], b"\xff", False, ["/etc/x/y differs (binary)"]),
        (["old"], b"new\n", True, []),
    ],
    ids=["text", "no file yet", "a terminal's escape", "binary", "secret"],
)
def test_a_plan_shows_what_differs_unless_it_is_secret(
    monkeypatch: pytest.MonkeyPatch, there: list[str] | None, content: bytes, *, secret: bool, shown: list[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr("deploys.operations.files.logger.info", lambda text, *more: said.append(text % more))
    with droplet({FileState: None, FileContents: there}):
        ctx_state.get().config.DIFF = True
        ctx_host.get().log = lambda text, log: log(text)
        list(atomic_file._inner(dest="/etc/x/y", content=content, secret=secret))
    printed = "\n".join(click.unstyle(line) for line in said)
    assert [one for one in shown if one not in printed] == []
    assert bool(printed) == bool(shown)
    assert "\x1b" not in printed
