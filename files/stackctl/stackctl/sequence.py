"""The highest number that a backup was ever seen to have off the droplet.

What lies here doesn't tell: of a droplet that was lost, an older one may be restored, and be all that the new one has.
"""

from . import durable
from .paths import Paths


def highest(paths: Paths) -> int | None:
    """0 when there was none; None when nobody has looked yet."""
    try:
        return int(paths.backup_sequence.read_text())
    except (FileNotFoundError, ValueError):
        return None


def seen(paths: Paths, number: int) -> None:
    before = highest(paths)
    if before is None or number > before:
        durable.write(paths.backup_sequence, f"{number}\n".encode())
