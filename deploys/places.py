"""A place's values as pyinfra merges them, for what runs beside it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent


def place_of(inventory: str) -> str:
    """The place that a command is told of by its inventory."""
    return Path(inventory).stem


def group_data(place: str) -> dict[str, Any]:
    """group_data/all.py with the place's own over it."""
    merged: dict[str, Any] = {}
    for group in ("all", place):
        merged |= runpy.run_path(str(_ROOT / "group_data" / f"{group}.py"))
    return {name: value for name, value in merged.items() if not name.startswith("_")}
