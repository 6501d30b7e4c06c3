"""Merges an environment's group_data in the same way as pyinfra, for programs that run outside pyinfra."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    from pyinfra.api.exceptions import PyinfraError
except ModuleNotFoundError:  # CI's scripts run without pyinfra
    PyinfraError = Exception  # type: ignore[misc, assignment]

_ROOT = Path(__file__).parents[2]
RENAMED = {"never_banned": "trusted_addresses"}
"""The new name of each renamed value. Old names work until OLD_NAMES_END (stackctl/core/old_names.py)."""


class GroupDataError(PyinfraError):
    """A file of group_data can't be read.

    The message is one line with the file, the line in the file, and the fault.
    """


def environment_of(inventory: str) -> str:
    """Return the name of the environment to which an inventory file belongs."""
    return Path(inventory).stem


def environment_among(groups: Iterable[str]) -> str:
    """Return the environment of a host from the host's groups, one of which has the name of the inventory file."""
    return next((name for name in groups if (_ROOT / "inventories" / f"{name}.py").is_file()), "lab")


def group_data(environment: str) -> dict[str, Any]:
    """Return the values of group_data/all.py, overridden by the values of the environment's own file.

    Raises GroupDataError.
    """
    merged: dict[str, Any] = {}
    for group in ("all", environment):
        merged |= _run(_ROOT / "group_data" / f"{group}.py")
    return {name: value for name, value in merged.items() if not name.startswith("_")}


def defaults() -> dict[str, Any]:
    """Return group_data/all.py. Raises GroupDataError."""
    return _run(_ROOT / "group_data" / "all.py")


def files_with(name: str, value: object) -> list[str]:
    """Return the files of group_data that set the given name to the given value. Raises GroupDataError."""
    return [str(path.relative_to(_ROOT)) for path in _files() if _run(path).get(name) == value]


def check() -> None:
    """Raise GroupDataError for the first file that can't be read.

    Check the files of all environments, because pyinfra reads all files.
    """
    for path in _files():
        _run(path)


def _files() -> list[Path]:
    return sorted((_ROOT / "group_data").glob("*.py"))


def _run(path: Path) -> dict[str, Any]:
    shown = path.relative_to(_ROOT)
    found = _values_in(path, shown)
    for old, new in RENAMED.items():
        if old in found and new in found:
            raise GroupDataError(
                f"{shown} sets both {old} and its new name {new}. Nothing was changed. Next: keep only {new}"
            )
    return found


def _values_in(path: Path, shown: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(path))
    except SyntaxError as error:
        raise GroupDataError(f"{shown} line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    except Exception as error:  # any error is possible, such as a NameError for a misspelt name
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise GroupDataError(f"{shown} line {lines[-1] if lines else 1}: {type(error).__name__}: {error}") from None
