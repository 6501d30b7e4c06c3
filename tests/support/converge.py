"""Converge and plan through pyinfra's command line, as an operator does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from tests.support.environment import ROOT


def pyinfra(environment: str) -> list[str]:
    """Return the command that converges an environment."""
    return [sys.executable, "-m", "pyinfra", f"inventories/{environment}.py", "deploys/site.py"]


PYINFRA = pyinfra("lab")


def site(*options: str, environment: str = "lab") -> dict[str, Any]:
    """Converge an environment, which must succeed, and return the output of pyinfra's `--json`."""
    command = [*pyinfra(environment), "-y", "--json", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return dict(json.loads(ran.stdout)["results"])


def failing_site(*options: str, environment: str = "lab") -> str:
    """Converge an environment, which must fail, and return the output."""
    command = [*pyinfra(environment), "-y", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode != 0, ran.stderr[-4000:]
    return ran.stdout + ran.stderr


def planned(*options: str) -> set[str]:
    """Return the operations that would change something according to a dry run."""
    ran = subprocess.run([*PYINFRA, "--dry", "--json", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return {one["name"] for one in json.loads(ran.stdout)["plan"] if one["hosts_with_change"]}


def changed(results: dict[str, Any]) -> set[str]:
    """Return the operations that changed something."""
    return {one["name"] for one in results["operations"] if one["success"]}


def start(*options: str) -> subprocess.Popen[str]:
    """Start a converge of the lab in the background. The converge's output can be read line by line."""
    command = [*PYINFRA, "-y", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(lines: Iterable[str], text: str) -> None:
    """Read until a line contains `text`."""
    for line in lines:
        if text in line:
            return
    raise AssertionError(f"the converge ended without printing {text!r}")


def checks() -> None:
    """Run tests/droplet on the lab as it is, without a converge."""
    command = [sys.executable, "-m", "pytest", "-q", "--as-is", "-p", "no:cacheprovider", "tests/droplet"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:]
