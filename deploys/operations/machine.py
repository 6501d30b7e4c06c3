"""The machine itself: what it still does after its birth, and where it swaps."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.operations import files

from deploys.facts.machine import Account, CloudInitStatus, Container, HalfInstalled, SwapfileMib
from deploys.operations import Commands

SWAPFILE = "/swapfile"


@operation()
def cloud_init_done() -> Commands:
    """Waits at most ten minutes for cloud-init to end; one that ended with recoverable errors (2) has ended."""
    if host.get_fact(CloudInitStatus) != "running":
        host.noop("cloud-init is done, or not there")
        return
    yield StringCommand("timeout 600 cloud-init status --wait", _success_exit_codes=[0, 2])


@operation()
def packages_whole() -> Commands:
    """Finishes what an interrupted apt left half installed; apt itself refuses to."""
    if not host.get_fact(HalfInstalled):
        host.noop("no package is half installed")
        return
    yield StringCommand("DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure --pending")
    yield StringCommand("DEBIAN_FRONTEND=noninteractive apt-get --yes --fix-broken install")


@operation()
def account(login: str) -> Commands:
    """A person's account with a home, bash and no password. (pyinfra's server.user reads all accounts: 0.4 s.)"""
    match host.get_fact(Account, login=login):
        case "/bin/bash":
            host.noop(f"{login} is there")
        case None:
            yield StringCommand("useradd --create-home --shell /bin/bash", QuoteString(login))
        case _:
            yield StringCommand("usermod --shell /bin/bash", QuoteString(login))


@operation()
def swapfile(mib: int) -> Commands:
    """Swaps to a file of `mib` MiB, now and after each boot; a container has its host's swap and is left alone."""
    if host.get_fact(Container):
        host.noop("a container swaps where its host does")
        return
    if host.get_fact(SwapfileMib, path=SWAPFILE) != mib:
        yield StringCommand(f"swapoff {SWAPFILE} 2>/dev/null; rm -f {SWAPFILE}")
        if mib:
            yield StringCommand(
                f"fallocate -l {mib}M {SWAPFILE} && chmod 600 {SWAPFILE} && mkswap {SWAPFILE} && swapon {SWAPFILE}"
            )
    yield from files.line._inner(path="/etc/fstab", line=f"{SWAPFILE} none swap sw 0 0", present=bool(mib))  # noqa: SLF001
