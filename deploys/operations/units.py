"""Operations for systemd's units and services."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.operations import systemd

from deploys.operations import Commands, declared
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler

UNITS = PurePosixPath("/etc/systemd/system")


@operation()
def service(unit: str, *, running: bool | None, enabled: bool) -> Commands:
    """Start or stop a unit, now and at boot. Add an enabled unit to the list in declared.py."""
    if enabled:
        declared.of(host).units.add(unit)
    yield from systemd.service._inner(service=unit, running=running, enabled=enabled)  # noqa: SLF001


@operation()
def systemd_units(units: Mapping[str, bytes], *, handler: str, restart: Sequence[str] = ()) -> Commands:
    """Write units and drop-ins, and make systemd read them.

    + units: the contents of the files, by the unit's name, or by path if a file is not below /etc/systemd/system
    + handler: the name of the handler that makes systemd read the units
    + restart: the units to restart if they are running, or patterns of such units
    """
    restarts = ["systemctl try-restart " + shlex.join(restart)] if restart else []
    read = Handler(handler, ["systemctl daemon-reload", *restarts])
    changes = [
        command
        # Write services first, because systemd-analyze refuses a socket or a timer whose service does not exist.
        for name, content in sorted(units.items(), key=lambda unit: not unit[0].endswith(".service"))
        for command in atomic_file._inner(  # noqa: SLF001
            dest=str(UNITS / name), content=content, notify=read, validate=_test(name)
        )
    ]
    if not changes and not read.pending:
        host.noop(f"systemd has read {', '.join(units)}")
        return
    yield from changes
    yield from map(StringCommand, read.commands)
    yield read.done()


def _test(name: str) -> str | None:
    """Return a command that tests a unit, or a drop-in together with its unit if the unit is installed.

    The command copies the file into a temporary directory that systemd searches first, because systemd finds units by
    name. Errors in other units do not count, because the converge may write a required unit later. Return None if
    systemd has no test for such a file.
    """
    unit = PurePosixPath(name).parts[0].removesuffix(".d")
    if name.startswith("/"):
        return None
    there = "true" if unit == name else f"systemctl cat {unit} >/dev/null 2>&1"
    return (
        f"{there} || exit 0; d=$(mktemp -d) && trap 'rm -r $d' EXIT && mkdir -p $d/{PurePosixPath(name).parent}"
        f" && cp %s $d/{name} && SYSTEMD_UNIT_PATH=$d: systemd-analyze verify --man=no --recursive-errors=no {unit}"
    )
