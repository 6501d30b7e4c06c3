"""Checks what the baselines demand of a file."""

from __future__ import annotations

from testinfra.host import Host


def too_open(droplet: Host, path: str, owner: str, most: int) -> str:
    """Return what is wrong with a file whose mode may be at most `most`, or nothing if the file doesn't exist."""
    found = droplet.run(f"stat -L -c '%U:%G %a' {path}").stdout.split()
    if not found:
        return ""
    return "" if found[0] == owner and not int(found[1], 8) & ~most else f"{path} is {' '.join(found)}"
