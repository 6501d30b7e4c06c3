"""Keep temporary directories in memory.

These tests write many small files, and most of their time would go into a disk's journal.
"""

import os
from pathlib import Path

MEMORY = Path("/dev/shm")
"""The file system in memory, in which pytest creates a directory for the user."""
ENOUGH_BYTES = 1 << 30


def pytest_configure() -> None:
    """Put `tmp_path` in memory, unless the user has chosen another directory."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return
    roomy = found.f_bavail * found.f_frsize >= ENOUGH_BYTES
    if roomy and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
