"""The order of a directory's tests, where it is not that of the alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


def sort(items: list[pytest.Item], directory: Path, names: Sequence[str]) -> None:
    """Sorts the tests below a directory by its modules or folders. One that is not among the names is an error."""
    ours = [at for at, item in enumerate(items) if directory in item.path.parents]
    ranked = sorted(
        (items[at] for at in ours),
        key=lambda item: names.index(item.path.relative_to(directory).parts[0].removesuffix(".py")),
    )
    for at, item in zip(ours, ranked, strict=True):
        items[at] = item
