"""The highest number ever seen among the off-site backups.

The backups on this droplet may not show it, because a droplet that replaces a lost one may have only an older backup.
"""

from collections.abc import Iterable

from stackctl.core import durable
from stackctl.core.paths import Paths

BELIEVED = 1 << 62
"""No droplet counts that far. A number this high was forged, to leave none for the next backup (manifest.MOST)."""


def highest(paths: Paths) -> int | None:
    """Return the number, 0 if there was no backup, or None if the storage was never read."""
    try:
        return greatest([int(paths.backup_sequence.read_text())])
    except (FileNotFoundError, ValueError):
        return None


def greatest(numbers: Iterable[int]) -> int:
    """Return the greatest credible number, or 0 if there is none."""
    return max((number for number in numbers if number < BELIEVED), default=0)


def seen(paths: Paths, number: int) -> None:
    before, number = highest(paths), greatest([number])
    if before is None or number > before:
        durable.write(paths.backup_sequence, f"{number}\n".encode())
