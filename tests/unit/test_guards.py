"""Tests that change an environment run only in the lab, and a test is skipped only if tests/skips.txt lists it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

from tests.support import order
from tests.support.environment import ROOT
from tests.support.suite import run_pytest


def test_tests_that_change_something_run_only_in_the_lab() -> None:
    """The guard stops a test that changes something, even if the test does not use the fixture `lab` itself."""
    said = run_pytest("--env", "prod", "tests/system/converge/test_lock.py", "-k", "test_a_dry_run_takes_no_lock")
    assert "this test changes things, and prod is not the lab" in said


def test_a_skip_that_is_not_committed_fails_the_run() -> None:
    said = run_pytest("tests/unit/skipping.py")
    assert "skipped but not in tests/skips.txt: tests/unit/skipping.py::test_left_out" in said


def test_no_example_has_a_deadline_and_ci_draws_the_same_ones_in_every_run() -> None:
    assert settings.default
    assert settings.default.deadline is None
    show = (
        "import tests.conftest, hypothesis; used = hypothesis.settings.default; print(used.deadline, used.derandomize)"
    )
    env = {**os.environ, "CI": "true"}
    said = subprocess.run([sys.executable, "-c", show], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert said.stdout == "None True\n"


def test_the_lab_s_runner_uses_the_profile_of_ci(tmp_path: Path) -> None:
    """The lab's job in CI uses the profile `ci`, although sudo drops GitHub's variables."""
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$1 $CI"\n')
    make.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True, check=True)
    assert said.stdout == "test true\nlab-down true\n"


def test_no_test_module_is_imported_by_another() -> None:
    """No test module imports another, because shared code is in tests/support."""
    imports = re.compile(
        r"^\s*(?:from|import) tests\.(?:\w+\.)*test_\w+|^\s*from tests[\w.]* import test_", re.MULTILINE
    )
    assert [path for path in (ROOT / "tests").rglob("*.py") if imports.search(path.read_text())] == []


def test_the_order_of_a_directory_is_kept_and_names_each_module() -> None:
    there = Path("/tests/converge")
    items: list[Any] = [
        SimpleNamespace(path=there.parent / name) for name in ("a.py", "converge/a.py", "converge/b/c.py")
    ]
    order.sort(items, there, ("b", "a"))
    assert [item.path.name for item in items] == ["a.py", "c.py", "a.py"]
    with pytest.raises(ValueError, match="not in"):
        order.sort(items, there, ("b",))
