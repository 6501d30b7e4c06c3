"""systemd's units, as the site wants them."""

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
    """Runs or stops a unit, now and at boot. One that is enabled here is known to be needed (declared.py)."""
    if enabled:
        declared.of(host).units.add(unit)
    yield from systemd.service._inner(service=unit, running=running, enabled=enabled)  # noqa: SLF001


@operation()
def systemd_units(units: Mapping[str, bytes], *, handler: str, restart: Sequence[str] = ()) -> Commands:
    """Write units and drop-ins, and have systemd read them.

    + units: by name; by path, what is not below /etc/systemd/system
    + handler: the name under which the droplet remembers that systemd has yet to read them
    + restart: units, or patterns of them, that are restarted where they run
    """
    restarts = ["systemctl try-restart " + shlex.join(restart)] if restart else []
    read = Handler(handler, ["systemctl daemon-reload", *restarts])
    changes = [
        command
        # A socket or a timer is refused while the service that it starts isn't there.
        for name, content in sorted(units.items(), key=lambda unit: not unit[0].endswith(".service"))
        for command in atomic_file._inner(  # noqa: SLF001
            dest=str(UNITS / name), content=content, notify=read, validate=_verified(name)
        )
    ]
    if not changes and not read.pending:
        host.noop(f"systemd has read {', '.join(units)}")
        return
    yield from changes
    yield from map(StringCommand, read.commands)
    yield read.done()


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
