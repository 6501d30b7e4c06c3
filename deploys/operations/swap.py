"""A swap file: a small droplet survives a burst with it (an apt upgrade beside two colours)."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.operations import files

from deploys.facts.machine import Container, SwapfileMib
from deploys.operations import Commands

PATH = "/swapfile"


@operation()
def swapfile(mib: int) -> Commands:
    """Swaps to a file of `mib` MiB, now and after each boot; a container has its host's swap and is left alone."""
    if host.get_fact(Container):
        host.noop("a container swaps where its host does")
        return
    if host.get_fact(SwapfileMib, path=PATH) != mib:
        yield StringCommand(f"swapoff {PATH} 2>/dev/null; rm -f {PATH}")
        if mib:
            yield StringCommand(f"fallocate -l {mib}M {PATH} && chmod 600 {PATH} && mkswap {PATH} && swapon {PATH}")
    yield from files.line._inner(path="/etc/fstab", line=f"{PATH} none swap sw 0 0", present=bool(mib))  # noqa: SLF001
