"""The highest number that a backup was ever seen to have, here or off the droplet.

What lies here doesn't tell: of a droplet that was lost, an older one may be restored, and be all that the new one has.
"""

from . import durable
from .paths import Paths


def highest(paths: Paths) -> int:
    """0 when none was seen."""
    try:
        return int(paths.backup_sequence.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def seen(paths: Paths, number: int) -> None:
    if number > highest(paths):
        durable.write(paths.backup_sequence, f"{number}\n".encode())
