"""The linters of what ruff and mypy don't read: shell, Dockerfiles, YAML's own programs. `python -m tests.lint`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tracked() -> list[Path]:
    """Every file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith((b"#!/bin/sh", b"#!/bin/bash"))


def main() -> int:
    files = tracked()
    shell = [path for path in files if is_shell(path)]
    dockerfiles = [path for path in files if path.name == "Dockerfile"]
    programs = Path(sys.executable).parent
    commands = [[programs / "shellcheck", *shell], [programs / "hadolint", *dockerfiles]]
    for program, *arguments in commands:
        print(f"{Path(program).name}: {len(arguments)} files")
        if not arguments:
            sys.exit(f"{Path(program).name} has nothing to look at: the search for its files is broken")
    return max(subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
