"""Every verb starts in the same way, and an internal error gives the right message and exit code."""

import os
import sys
from pathlib import Path

import pytest

from stackctl.app import state
from stackctl.cli import main
from tests.support.fakes.droplet import installed, stackctl


@pytest.mark.parametrize("verb", [["status"], ["boot"], ["release", "1.0.0"]])
def test_a_fault_of_our_own_needs_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    """An internal error needs a person.

    The follower of a release shows a message, and the journal has the traceback.
    """

    def faulty(*_arguments: object) -> None:
        raise ZeroDivisionError("by nought")

    droplet = installed(tmp_path)
    monkeypatch.setattr(state, "load", faulty)
    code, shown = stackctl(droplet, *verb)
    assert code == 4
    assert "internal error in stackctl (ZeroDivisionError('by nought'))" in shown.splitlines()[-1]
    assert "Traceback" in capsys.readouterr().err


def test_only_root_may(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["stackctl", "status", "--json"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as refused:
        main.main("bot")
    assert refused.value.code == 2
    assert capsys.readouterr().err == "stackctl: this command must run as root. Next: sudo stackctl status --json\n"
