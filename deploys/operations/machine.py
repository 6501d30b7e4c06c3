"""Operations for the machine itself: cloud-init, swap and the permissions of Debian's files."""

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
    """Wait at most ten minutes until cloud-init has finished.

    Accept exit code 2, with which cloud-init reports recoverable errors.
    """
    if host.get_fact(CloudInitStatus) != "running":
        host.noop("cloud-init has finished, or is not installed")
        return
    yield StringCommand("timeout 600 cloud-init status --wait", _success_exit_codes=[0, 2])


@operation()
def new_machine_id() -> Commands:
    """Replace the machine ID by a random one, because an image copies it, and it has to be unique (machine-id(5)).

    The journal is in a directory with the name of the ID, so the directory moves with the ID.
    """
    yield StringCommand(
        "set -e; old=$(cat /etc/machine-id); new=$(systemd-id128 new);"
        ' echo "$new" > /etc/machine-id.new; chmod 444 /etc/machine-id.new;'
        ' if [ -n "$old" ] && [ -d "/var/log/journal/$old" ]; then'
        ' mv -T "/var/log/journal/$old" "/var/log/journal/$new"; fi;'
        " mv -f /etc/machine-id.new /etc/machine-id; systemctl restart systemd-journald.service"
    )


@operation()
def swapfile(mib: int) -> Commands:
    """Swap to a file of `mib` MiB, now and after each boot.

    In a container, do nothing, because a container uses its host's swap.
    """
    if host.get_fact(Container):
        host.noop("a container uses its host's swap")
        return
    if host.get_fact(SwapfileMib, path=SWAPFILE) != mib:
        yield StringCommand(f"swapoff {SWAPFILE} 2>/dev/null; rm -f {SWAPFILE}")
        if mib:
            # Give the swap file another name until the file is complete, so that an interrupted run leaves no
            # incomplete swap file.
            yield StringCommand(f"fallocate -l {mib}M {SWAPFILE}.new && chmod 600 {SWAPFILE}.new")
            yield StringCommand(f"mkswap {SWAPFILE}.new && mv {SWAPFILE}.new {SWAPFILE}")
            yield StringCommand(f"swapon {SWAPFILE}")
    elif mib and SWAPFILE not in host.get_fact(Swaps):
        yield StringCommand(f"swapon {SWAPFILE}")
    yield from files.line._inner(path="/etc/fstab", line=f"{SWAPFILE} none swap sw 0 0", present=bool(mib))  # noqa: SLF001


@operation()
def permissions(wanted: Mapping[str, str]) -> Commands:
    """Set the modes of Debian's own files and directories, which are given by path. Skip paths that do not exist."""
    there = host.get_fact(Modes, paths=list(wanted))
    wrong = [path for path, mode in there.items() if mode != wanted[path]]
    if not wrong:
        host.noop("all modes are as declared")
    for path in wrong:
        yield StringCommand("chmod", wanted[path], QuoteString(path))
