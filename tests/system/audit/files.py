"""What the baselines ask of a file."""

from __future__ import annotations

from testinfra.host import Host


def too_open(droplet: Host, path: str, owner: str, most: int) -> str:
    """What is wrong with a file whose mode may be `most`; nothing, when it isn't there."""
    found = droplet.run(f"stat -L -c '%U:%G %a' {path}").stdout.split()
    if not found:
        return ""
    return "" if found[0] == owner and not int(found[1], 8) & ~most else f"{path} is {' '.join(found)}"
