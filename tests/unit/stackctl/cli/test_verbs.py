"""The table of verbs names modules and functions that exist.

A verb's module is imported only when the verb is called.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pytest

from stackctl.cli import run, verbs
from stackctl.cli.verbs import VERBS, Lock, Verb
from stackctl.core import lock
from stackctl.core.old_names import OLD_NAMES_END
from stackctl.core.version import VERSION
from tests.support.environment import ROOT
from tests.support.fakes.droplet import PARSER, Droplet, installed, stackctl
from tests.support.fakes.restic import reached


@pytest.mark.parametrize("row", VERBS, ids=[row.name for row in VERBS])
def test_every_function_that_a_row_names_exists(row: Verb) -> None:
    for name in filter(None, (row.handler, row.remembered, row.subject, row.background)):
        assert callable(verbs.function(name))
    assert row.handler or row.name == "gate"


def test_verbs_that_only_read_need_no_lock_and_no_unit() -> None:
    assert [row.name for row in VERBS if row.reads_only and (row.lock is not Lock.NONE or row.background)] == []


def test_the_help_imports_no_verb_s_module() -> None:
    code = "import sys; from stackctl.cli.main import parser; parser('bot').format_help(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in ran.stdout.split() if name.startswith("stackctl.")}
    assert rooms == {"core", "cli"}
    assert "stackctl.core.machine" not in ran.stdout.split()


def test_a_verb_s_module_is_there_before_the_verb_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb imports its module before it waits for a lock. A converge may replace the zipapp during the wait."""
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


OLD_NAMES = [("backups", "list-backups"), ("offsite", "check-offsite")]


def test_the_old_names_are_those_of_the_changelog() -> None:
    assert [(old, verb.name) for old, verb in verbs.BY_OLD_NAME.items()] == OLD_NAMES
    deprecated = (ROOT / "CHANGELOG.md").read_text().partition("### Deprecated")[2].partition("\n### ")[0]
    assert [f"stackctl's verb `{old}` is now called `{new}`" in deprecated for old, new in OLD_NAMES] == [True] * len(
        OLD_NAMES
    )
    assert f"until version {OLD_NAMES_END}" in deprecated


def test_the_old_names_end_with_their_version() -> None:
    """If this test fails, the old names have been accepted for one version.

    When this test fails, remove the old names.
    """
    assert as_numbers(VERSION) < as_numbers(OLD_NAMES_END)


def as_numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


@pytest.mark.parametrize(("old", "new"), OLD_NAMES)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_old_name_does_the_same_and_is_announced(tmp_path: Path, old: str, new: str, options: list[str]) -> None:
    code, out, err = ran(with_backup(tmp_path / "new"), new, *options)
    assert code == 0
    assert out
    note = f"stackctl: `{old}` is now called `{new}`. The old name works until version {OLD_NAMES_END}\n"
    assert ran(with_backup(tmp_path / "old"), old, *options) == (code, out, note + err)


def with_backup(directory: Path) -> Droplet:
    """Create a droplet with a backup that is also off-site. Two such droplets show the same output."""
    droplet = installed(directory)
    reached(droplet.paths)
    assert stackctl(droplet, "backup")[0] == 0
    return droplet


def ran(droplet: Droplet, *arguments: str) -> tuple[int, str, str]:
    """Run stackctl, and return its exit code, its output and its error output."""
    out, err = StringIO(), StringIO()
    code = run.run(PARSER.parse_args(arguments), droplet.paths, droplet, out, err)
    return code, out.getvalue(), err.getvalue()


def test_the_help_shows_no_old_name() -> None:
    listed = re.findall(r"^    ([\w-]+)", PARSER.format_help(), re.MULTILINE)
    assert listed == [verb.name for verb in VERBS]
    assert "{" not in PARSER.format_usage(), "the usage must not list the old names"
