"""Debian packages. The operations install and remove packages, and repair packages after an interrupted run of apt."""

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
def packages(packages: Sequence[str], *, present: bool = True) -> Commands:
    """Install the missing packages, but not the packages that these packages recommend.

    With `present=False`, purge the packages.

    apt runs only after its other users (cloud-init, apt's own timers) have finished. The package lists are only updated
    when a package is missing. In contrast, apt.packages(update=True) would update the lists each day, and report each
    update as a change.
    """
    installed = host.get_fact(DebPackages)
    changing = [package for package in packages if (package in installed) != present]
    if not changing:
        host.noop(f"{', '.join(packages)}: {'installed' if present else 'not installed'}")
        return
    yield _wait_for_apt()
    if present:
        yield from apt.update._inner(cache_time=LISTS_ARE_FRESH_S)  # noqa: SLF001
        yield from apt.packages._inner(packages=changing, no_recommends=True)  # noqa: SLF001
    else:
        yield StringCommand("DEBIAN_FRONTEND=noninteractive apt-get --yes purge", *changing)


@operation()
def repair_interrupted_dpkg() -> Commands:
    """Configure packages that an interrupted apt left half installed.

    While a package is half installed, apt refuses to work.

    If a converge is killed, apt continues for a while and may finish by itself. So the operation first waits for apt.
    """
    if not host.get_fact(HalfInstalled):
        host.noop("no package is half installed")
        return
    yield _wait_for_apt()
    yield StringCommand("DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure --pending")
    yield StringCommand("DEBIAN_FRONTEND=noninteractive apt-get --yes --fix-broken install")


def _wait_for_apt() -> StringCommand:
    return StringCommand("timeout 600 python3 -", _stdin=build.file("base/wait_for_apt.py").decode())
