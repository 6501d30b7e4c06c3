"""Reloads that are owed: what changed on disk and is not in force yet.

The droplet remembers the debt in a file, since a run can die between a change and its reload, and the next run sees
no difference any more. `place(owes=…)` takes on the debt, `settle` pays it; `systemd_units` does both.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from deploys.facts.files import Owed
from deploys.operations import Commands
from deploys.operations.files import place

UNITS = PurePosixPath("/etc/systemd/system")


@operation()
def settle(debt: str, commands: Sequence[str], *, after: Sequence[OperationMeta]) -> Commands:
    """Runs `commands` when `debt` (the marker's path) is there, then removes it.

    + after: the operations that may take on the debt, so that a plan shows the reload before the debt exists
    """
    if not is_owed(debt) and (state.is_executing or not any(change.will_change for change in after)):
        host.noop(f"{debt} is paid")
        return
    for command in commands:
        yield StringCommand(command)
    yield StringCommand("rm -f", QuoteString(debt))


@operation()
def systemd_units(units: Mapping[str, bytes], *, debt: str, restart: Sequence[str] = ()) -> Commands:
    """Units and drop-ins, which systemd has read.

    + units: by name; by path, what is not below /etc/systemd/system
    + restart: units, or patterns of them, that are started anew where they run
    """
    changes = [
        command
        # A socket or a timer is refused while the service that it starts isn't there.
        for name, content in sorted(units.items(), key=lambda unit: not unit[0].endswith(".service"))
        for command in place._inner(  # noqa: SLF001
            dest=str(UNITS / name), content=content, owes=debt, validate=_verified(name)
        )
    ]
    if not changes and not is_owed(debt):
        host.noop(f"systemd has read {', '.join(units)}")
        return
    yield from changes
    yield StringCommand("systemctl daemon-reload")
    if restart:
        yield StringCommand("systemctl try-restart", shlex.join(restart))
    yield StringCommand("rm -f", QuoteString(debt))


def _verified(name: str) -> str | None:
    """Returns systemd's test of a unit, or of a drop-in with its unit where that is installed.

    systemd goes by names, so the file is copied into a directory of its own, which is searched first. Only the unit's
    own faults count: what it requires may come later in the same converge. None: systemd has no test for such a file.
    """
    unit = PurePosixPath(name).parts[0].removesuffix(".d")
    if name.startswith("/"):
        return None
    there = "true" if unit == name else f"systemctl cat {unit} >/dev/null 2>&1"
    return (
        f"{there} || exit 0; d=$(mktemp -d) && trap 'rm -r $d' EXIT && mkdir -p $d/{PurePosixPath(name).parent}"
        f" && cp %s $d/{name} && SYSTEMD_UNIT_PATH=$d: systemd-analyze verify --man=no --recursive-errors=no {unit}"
    )


def is_owed(debt: str) -> bool:
    """Whether the droplet remembers it."""
    marker = PurePosixPath(debt)
    return marker.name in host.get_fact(Owed, directory=str(marker.parent))
