"""A place's values as pyinfra merges them, for what runs beside it."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyinfra.api.exceptions import PyinfraError

_ROOT = Path(__file__).parents[2]


class PlaceError(PyinfraError):
    """group_data can't be read. One line: the file, the line, and what is wrong."""


def place_of(inventory: str) -> str:
    """The place that a command is told of by its inventory."""
    return Path(inventory).stem


def place_among(groups: Iterable[str]) -> str:
    """The place that a host belongs to: pyinfra makes a group of each inventory, named after its file."""
    return next((name for name in groups if (_ROOT / "inventories" / f"{name}.py").is_file()), "lab")


def group_data(place: str) -> dict[str, Any]:
    """group_data/all.py with the place's own over it. Raises PlaceError."""
    merged: dict[str, Any] = {}
    for group in ("all", place):
        merged |= _run(_ROOT / "group_data" / f"{group}.py")
    return {name: value for name, value in merged.items() if not name.startswith("_")}


def check() -> None:
    """Raise PlaceError for the first file of group_data that can't be read. pyinfra reads all, whatever the place."""
    for path in sorted((_ROOT / "group_data").glob("*.py")):
        _run(path)


def _run(path: Path) -> dict[str, Any]:
    shown = path.relative_to(_ROOT)
    try:
        return runpy.run_path(str(path))
    except SyntaxError as error:
        raise PlaceError(f"{shown} line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    except Exception as error:  # a misspelt name, say
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise PlaceError(f"{shown} line {lines[-1] if lines else 1}: {type(error).__name__}: {error}") from None
