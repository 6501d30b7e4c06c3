"""systemd's units, as the site wants them."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation
from pyinfra.operations import systemd

from deploys.operations import Commands, declared


@operation()
def service(unit: str, *, running: bool | None, enabled: bool) -> Commands:
    """Runs or stops a unit, now and at boot. One that is enabled here is known to be needed (declared.py)."""
    if enabled:
        declared.of(host).units.add(unit)
    yield from systemd.service._inner(service=unit, running=running, enabled=enabled)  # noqa: SLF001
