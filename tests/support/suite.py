"""Run a part of this test suite, and assert that it fails."""

from __future__ import annotations

import subprocess
import sys

from tests.support.environment import ROOT


def run_pytest(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode != 0, ran.stdout
    return ran.stdout
