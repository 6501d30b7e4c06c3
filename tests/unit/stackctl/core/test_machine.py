"""The real Machine works with real terminals, disks and signals."""

import os
import signal
import sys
import time
from io import StringIO
from pathlib import Path

import pytest

from stackctl.core.machine import Machine


@pytest.mark.parametrize(("typed", "answer"), [("the id \n", "the id"), ("\n", ""), ("", "")])
def test_a_prompt_without_a_terminal_has_no_answer(monkeypatch: pytest.MonkeyPatch, typed: str, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(typed))
    assert Machine().prompt("Which? ") is None, "without a terminal, prompt must return None"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert Machine().prompt("Which? ") == answer


def test_free_space_is_at_most_the_disk_s_size(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert 0 < Machine().free(tmp_path) < disk.f_blocks * disk.f_frsize


def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shielded_step_ignores_signals(number: signal.Signals) -> None:
    former = {known: signal.signal(known, interrupted) for known in (signal.SIGTERM, signal.SIGINT)}
    try:
        Machine().ignore_signals()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    finally:
        for known, handler in former.items():
            signal.signal(known, handler)
