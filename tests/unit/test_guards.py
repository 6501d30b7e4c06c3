"""The suite's own guards: what changes a place refuses any but the lab, and a skip has to be committed."""

from __future__ import annotations

import subprocess
import sys

from tests.places import ROOT


def run_pytest(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode != 0, ran.stdout
    return ran.stdout


def test_what_changes_something_refuses_any_place_but_the_lab() -> None:
    """This one doesn't ask for the lab by name."""
    said = run_pytest("--place", "prod", "tests/faults/test_2_lock.py", "-k", "test_a_dry_run_takes_no_lock")
    assert "this changes things, and prod is not the lab" in said


def test_a_skip_that_is_not_committed_fails_the_run() -> None:
    said = run_pytest("tests/unit/skipping.py")
    assert "skipped without standing in tests/skips.txt: tests/unit/skipping.py::test_left_out" in said
