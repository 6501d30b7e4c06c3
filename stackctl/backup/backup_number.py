"""Remembers the highest number that this droplet has ever seen among the off-site backups.

The backups on this droplet may all have lower numbers. For example, a droplet that replaces a lost droplet may have
only one old backup.
"""

from collections.abc import Iterable

from stackctl.core import durable
from stackctl.core.paths import Paths

BELIEVED = 1 << 62
"""No droplet counts that far. An intruder forges such a number so that no higher one is left (manifest.MOST)."""


def highest(paths: Paths) -> int | None:
    """Return the highest number ever seen off-site, 0 if no backup was there, or None if nobody ever looked."""
    try:
        return greatest([int(paths.backup_sequence.read_text())])
    except (FileNotFoundError, ValueError):
        return None


def greatest(numbers: Iterable[int]) -> int:
    """Return the greatest credible number, or 0 if no number is credible."""
    return max((number for number in numbers if number < BELIEVED), default=0)


def seen(paths: Paths, number: int) -> None:
    before, number = highest(paths), greatest([number])
    if before is None or number > before:
        durable.write(paths.backup_sequence, f"{number}\n".encode())
