"""Waits until no other process uses apt. apt's own timeout covers dpkg's lock, but not these two (apt 3.0)."""

import fcntl
from pathlib import Path

for lock in ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"):
    with Path(lock).open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
