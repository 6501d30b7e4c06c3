"""Waits until no other process uses apt. apt's own timeout (3.0) covers dpkg's lock, but not the two locks below."""

import fcntl
from pathlib import Path

for lock in ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"):
    with Path(lock).open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
