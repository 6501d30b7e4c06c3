"""Checks a file's owner and mode against a baseline."""

from __future__ import annotations

from testinfra.host import Host


def too_open(droplet: Host, path: str, owner: str, most: int) -> str:
    """Return the fault of a file whose mode must not exceed `most`.

    Return "" if the file is right or does not exist.
    """
    found = droplet.run(f"stat -L -c '%U:%G %a' {path}").stdout.split()
    if not found:
        return ""
    return "" if found[0] == owner and not int(found[1], 8) & ~most else f"{path} is {' '.join(found)}"
