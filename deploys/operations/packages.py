"""Debian packages, as far as pyinfra's apt leaves something to wish."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.facts.deb import DebPackages
from pyinfra.operations import apt

from deploys import build
from deploys.facts.machine import HalfInstalled
from deploys.operations import Commands

LISTS_ARE_FRESH_S = 3600


@operation()
def installed(packages: Sequence[str]) -> Commands:
    """Installs what is missing, without recommendations, once nobody else (cloud-init, apt's timers) uses apt.

    The lists are read anew only when something is missing: apt.packages(update=True) would do so each day, as drift.
    """
    there = host.get_fact(DebPackages)
    missing = [package for package in packages if package not in there]
    if not missing:
        host.noop(f"{', '.join(packages)} installed")
        return
    yield _nobody_else_uses_apt()
    yield from apt.update._inner(cache_time=LISTS_ARE_FRESH_S)  # noqa: SLF001
    yield from apt.packages._inner(packages=missing, no_recommends=True)  # noqa: SLF001


@operation()
def absent(packages: Sequence[str]) -> Commands:
    """Removes what is there of them, with its configuration."""
    there = [package for package in packages if package in host.get_fact(DebPackages)]
    if not there:
        host.noop(f"none of {', '.join(packages)}")
        return
    yield _nobody_else_uses_apt()
    yield StringCommand("DEBIAN_FRONTEND=noninteractive apt-get --yes purge", *there)


@operation()
def whole() -> Commands:
    """Finishes what an interrupted apt left half installed; apt itself refuses to.

    The apt of a converge that was killed goes on for a while, and then leaves nothing to finish.
    """
    if not host.get_fact(HalfInstalled):
        host.noop("no package is half installed")
        return
    yield _nobody_else_uses_apt()
    yield StringCommand("DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure --pending")
    yield StringCommand("DEBIAN_FRONTEND=noninteractive apt-get --yes --fix-broken install")


def _nobody_else_uses_apt() -> StringCommand:
    return StringCommand("timeout 600 python3 -", _stdin=build.file("base/wait_for_apt.py").decode())
