"""Waits until no other process uses apt or dpkg.

apt's own timeout (3.0) covers dpkg's lock, but not the two locks of apt. dpkg itself does not wait for any lock.
"""

import fcntl
from pathlib import Path

for lock in ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock", "/var/lib/dpkg/lock-frontend"):
    with Path(lock).open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
