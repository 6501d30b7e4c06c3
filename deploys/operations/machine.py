"""The machine itself: what it still does after its birth, and where it swaps."""

from __future__ import annotations

from collections.abc import Mapping

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.operations import files

from deploys.facts.machine import CloudInitStatus, Container, Modes, SwapfileMib, Swaps
from deploys.operations import Commands

SWAPFILE = "/swapfile"


@operation()
def wait_for_cloud_init() -> Commands:
    """Waits at most ten minutes for cloud-init to end; one that ended with recoverable errors (2) has ended."""
    if host.get_fact(CloudInitStatus) != "running":
        host.noop("cloud-init is done, or not there")
        return
    yield StringCommand("timeout 600 cloud-init status --wait", _success_exit_codes=[0, 2])


@operation()
def swapfile(mib: int) -> Commands:
    """Swaps to a file of `mib` MiB, now and after each boot; a container has its host's swap and is left alone."""
    if host.get_fact(Container):
        host.noop("a container swaps where its host does")
        return
    if host.get_fact(SwapfileMib, path=SWAPFILE) != mib:
        yield StringCommand(f"swapoff {SWAPFILE} 2>/dev/null; rm -f {SWAPFILE}")
        if mib:
            # Under another name until it is whole: a run that dies here leaves nothing that looks finished.
            yield StringCommand(f"fallocate -l {mib}M {SWAPFILE}.new && chmod 600 {SWAPFILE}.new")
            yield StringCommand(f"mkswap {SWAPFILE}.new && mv {SWAPFILE}.new {SWAPFILE}")
            yield StringCommand(f"swapon {SWAPFILE}")
    elif mib and SWAPFILE not in host.get_fact(Swaps):
        yield StringCommand(f"swapon {SWAPFILE}")
    yield from files.line._inner(path="/etc/fstab", line=f"{SWAPFILE} none swap sw 0 0", present=bool(mib))  # noqa: SLF001


@operation()
def permissions(wanted: Mapping[str, str]) -> Commands:
    """Files and directories of Debian's with these modes, by path; what isn't there is not made."""
    there = host.get_fact(Modes, paths=list(wanted))
    wrong = [path for path, mode in there.items() if mode != wanted[path]]
    if not wrong:
        host.noop("their modes are as declared")
    for path in wrong:
        yield StringCommand("chmod", wanted[path], QuoteString(path))
