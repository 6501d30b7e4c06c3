"""Sort a directory's tests in an order that is not alphabetical."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


def sort(items: list[pytest.Item], directory: Path, names: Sequence[str]) -> None:
    """Sort the tests below a directory in the order of `names`, which must list all of its modules and folders."""
    ours = [at for at, item in enumerate(items) if directory in item.path.parents]
    ranked = sorted(
        (items[at] for at in ours),
        key=lambda item: names.index(item.path.relative_to(directory).parts[0].removesuffix(".py")),
    )
    for at, item in zip(ours, ranked, strict=True):
        items[at] = item
