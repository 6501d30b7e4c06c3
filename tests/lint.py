"""Lints shell scripts, Dockerfiles, GitHub's workflows and the docs: `python -m tests.lint`.

`make lint` runs ruff and mypy as well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import docs
from tests.docs import ROOT, tracked


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith((b"#!/bin/sh", b"#!/bin/bash"))


def is_workflow(path: Path) -> bool:
    return path.suffix == ".yml" and path.parent.name in {"workflows", "examples"}


def main() -> int:
    files = [ROOT / path for path in tracked()]
    shell = [path for path in files if is_shell(path)]
    dockerfiles = [path for path in files if path.name == "Dockerfile"]
    programs = Path(sys.executable).parent
    workflows = [path for path in files if is_workflow(path)]
    looks: list[tuple[list[str], list[Path]]] = [
        (["shellcheck"], shell),
        (["hadolint"], dockerfiles),
        (["actionlint", "-shellcheck", str(programs / "shellcheck")], workflows),
        (["zizmor", "--offline", "--quiet", "--no-progress"], workflows),
    ]
    codes = [docs.main([])]
    for (program, *options), found in looks:
        print(f"{program}: {len(found)} files", flush=True)
        if not found:
            sys.exit(f"{program} has nothing to look at: the search for its files is broken")
        codes.append(subprocess.run([programs / program, *options, *found], cwd=ROOT, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
