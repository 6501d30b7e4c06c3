"""Waits until nobody else uses apt: its own time-out covers dpkg's lock, these two not (apt 3.0)."""

import fcntl
from pathlib import Path

for lock in ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"):
    with Path(lock).open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
