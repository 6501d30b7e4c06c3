"""The Makefile passes on each word exactly as the operator typed it, and refuses a mistyped variable."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from stackctl.core.old_names import OLD_NAMES_END
from tests.support.environment import ROOT

OLD_TARGETS = [("live", "promote"), ("canary", "leaks")]
ODD = ["1.0", "1.10", "1.0 0", "1.0\"'`id`", "1;id", "$(id)", "a\\b"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Write a program that prints its arguments, as a stand-in for .venv's Python."""
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    path.chmod(0o755)
    return path


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make without its target setup."""
    command = ["make", "-o", ".venv/.installed", *words]
    # If make runs these tests, the outer make's variables would make the inner make print the directory that it enters.
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("MAKE")}, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def data(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return [after for one, after in pairwise(arguments(ran)) if one == "--data"]


def arguments(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the arguments of the first program, without the commands that make prints before."""
    assert ran.returncode == 0, ran.stderr
    words: list[str] = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("[")))
    return words


@pytest.mark.parametrize("tag", ODD)
@pytest.mark.parametrize("target", ["release", "rollback"])
def test_a_tag_arrives_as_it_was_typed(program: Path, target: str, tag: str) -> None:
    assert data(make(target, f"PYTHON={program}", TAG=tag)) == [f'tag="{tag}"']


def test_the_words_of_a_restore_arrive_as_they_were_typed(program: Path) -> None:
    told = data(
        make("restore", f"PYTHON={program}", "ID=20251123T023004.123Z", "YES=y's", 'BESIDE=lo"st', "OFFSITE=yes")
    )
    assert told == ['id="20251123T023004.123Z"', 'yes="y\'s"', "offsite=true", 'beside="lo"st"']
    assert data(make("restore", f"PYTHON={program}")) == ['id="latest"', 'yes=""']


@pytest.mark.parametrize("word", [word for word in ODD if "$" not in word])
def test_a_word_on_the_command_line_arrives_as_it_was_typed(program: Path, word: str) -> None:
    """A word on make's command line arrives unchanged, although make itself expands a `$` in such a word."""

    def run(target: str, *names: str) -> subprocess.CompletedProcess[str]:
        return make(target, f"PYTHON={program}", *(f"{name}={word}" for name in names))

    for target in ("release", "rollback"):
        assert data(run(target, "TAG")) == [f'tag="{word}"']
    names = ("ID", "YES", "SNAPSHOT", "BESIDE")
    assert data(run("restore", *names)) == [f'{name.lower()}="{word}"' for name in names]
    assert data(run("site", "REMOVE")) == [f'foreign_removed="{word}"']
    assert arguments(run("rotate", "KEY", "YES"))[-2:] == [word, "--yes"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("site", ["-m", "pyinfra", "-y", "inventories/prod.py", "deploys/site.py"]),
        ("isolate", ["-m", "pyinfra", "-y", "inventories/prod.py", "deploys/site.py", "--data", "isolated=true"]),
        ("promote", ["-m", "pyinfra", "-y", "inventories/prod.py", "deploys/site.py", "--data", "isolated=false"]),
        ("status", ["-m", "pyinfra", "-y", "inventories/prod.py", "deploys/status.py"]),
        ("backup", ["-m", "pyinfra", "-y", "inventories/prod.py", "deploys/backup.py"]),
        ("plan", ["-m", "deploys.converge.plan", "inventories/prod.py"]),
        ("prune", ["-m", "deploys.offsite.prune", "inventories/prod.py"]),
        ("offsite", ["-m", "deploys.offsite.setup", "inventories/prod.py"]),
        ("rotate", ["-m", "deploys.rotation.rotate", "inventories/prod.py", "A 'B"]),
    ],
)
def test_a_target_runs_its_program(program: Path, target: str, words: list[str]) -> None:
    ran = make(target, "ENV=prod", f"PYTHON={program}", KEY="A 'B")
    assert ran.returncode == 0, ran.stderr
    assert words in [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize(("old", "new"), OLD_TARGETS)
def test_an_old_target_does_the_same_and_is_announced(program: Path, old: str, new: str) -> None:
    words = ("ENV=lab", f"PYTHON={program}", "-o", "lab-ready")
    before, now = make(old, *words), make(new, *words)
    assert (now.returncode, now.stderr) == (0, "")
    assert now.stdout
    assert (before.returncode, before.stdout) == (0, now.stdout)
    (line,) = before.stderr.splitlines()
    assert line.endswith(f": `{old}` is now called `{new}`. The old name works until version {OLD_NAMES_END}")


def test_the_old_targets_are_those_of_the_changelog() -> None:
    (pairs,) = re.findall(r"^RENAMED := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [tuple(pair.split("=")) for pair in pairs.split()] == OLD_TARGETS
    deprecated = (ROOT / "CHANGELOG.md").read_text().partition("### Deprecated")[2].partition("\n### ")[0]
    listed = make("help").stdout
    for old, new in OLD_TARGETS:
        assert f"`make {old}` is now called `make {new}`" in deprecated
        assert re.search(rf"^  {new} ", listed, re.MULTILINE)
        assert not re.search(rf"^  {old} ", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BESIDES=lost", "BESIDE"),
        ("env=prod", "ENV"),
        ("TAGS=1.0", "TAG"),
        ("Id=latest", "ID"),
        ("OFSITE=1", "OFFSITE"),
    ],
)
def test_an_unknown_variable_is_refused_and_the_likely_one_named(program: Path, variable: str, meant: str) -> None:
    ran = make("restore", variable, f"PYTHON={program}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"no variable {variable.partition('=')[0]} (did you mean {meant}?). Nothing was changed" in ran.stderr


def test_a_variable_like_no_other_is_refused(program: Path) -> None:
    ran = make("status", "COLOR=1", f"PYTHON={program}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "There is no variable COLOR. Nothing" in ran.stderr


def test_every_variable_that_the_makefile_reads_is_known() -> None:
    known = make("help").stdout.splitlines()[-1]
    for name in ("ENV", "DROPLETS", "TAG", "KEY", "ID", "OFFSITE", "BESIDE", "YES", "DRILL_MB"):
        assert make("help", f"{name}={'lab' if name == 'ENV' else '1'}").returncode == 0
        assert name in known
