"""The highest number that a backup was ever seen to have off the droplet.

What lies here doesn't tell: of a droplet that was lost, an older one may be restored, and be all that the new one has.
"""

from collections.abc import Iterable

from stackctl.core import durable
from stackctl.core.paths import Paths

BELIEVED = 1 << 62
"""Nobody has counted so far. A number from here on is meant to leave none for the next backup (manifest.MOST)."""


def highest(paths: Paths) -> int | None:
    """0 when there was none; None when nobody has looked yet."""
    try:
        return greatest([int(paths.backup_sequence.read_text())])
    except (FileNotFoundError, ValueError):
        return None


def greatest(numbers: Iterable[int]) -> int:
    """The greatest of those that can be believed; 0 when there is none."""
    return max((number for number in numbers if number < BELIEVED), default=0)


def seen(paths: Paths, number: int) -> None:
    before, number = highest(paths), greatest([number])
    if before is None or number > before:
        durable.write(paths.backup_sequence, f"{number}\n".encode())
