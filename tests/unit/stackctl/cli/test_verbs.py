"""The table of verbs: what its rows name exists, and costs nothing before it is called."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from stackctl.cli import verbs
from stackctl.cli.verbs import VERBS, Lock, Verb
from stackctl.core import lock
from tests.support.fakes.droplet import installed, stackctl


@pytest.mark.parametrize("row", VERBS, ids=[row.name for row in VERBS])
def test_every_function_that_a_row_names_exists(row: Verb) -> None:
    for name in filter(None, (row.handler, row.remembered, row.subject, row.background)):
        assert callable(verbs.function(name))
    assert row.handler or row.name == "gate"


def test_what_only_reads_holds_nothing_and_is_in_no_unit() -> None:
    assert [row.name for row in VERBS if row.reads_only and (row.lock is not Lock.NONE or row.background)] == []


def test_the_help_imports_no_verb_s_module() -> None:
    code = "import sys; from stackctl.cli.main import parser; parser('bot').format_help(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in ran.stdout.split() if name.startswith("stackctl.")}
    assert rooms == {"core", "cli"}
    assert "stackctl.core.machine" not in ran.stdout.split()


def test_a_verb_s_module_is_there_before_the_verb_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converge may replace the zipapp meanwhile: what is imported from it later isn't found."""
    done: list[str] = []

    def function(name: str) -> Callable[..., int]:
        done.append(name)
        return lambda *_: 0

    def hold(*_: object) -> nullcontext[None]:
        done.append("lock")
        return nullcontext()

    monkeypatch.setattr(verbs, "function", function)
    monkeypatch.setattr(lock, "hold", hold)
    assert stackctl(installed(tmp_path), "--run", "1", "rollback", "1.0.0")[0] == 0
    assert done == ["releases:subject", "releases:rollback", "lock"]
