"""cloud-init, as far as a converge has to wait for it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.facts.machine import CloudInitStatus
from deploys.operations import Commands


@operation()
def settled() -> Commands:
    """Waits at most ten minutes for cloud-init to end; one that ended with recoverable errors (2) has ended."""
    if host.get_fact(CloudInitStatus) != "running":
        host.noop("cloud-init is done, or not there")
        return
    yield StringCommand("timeout 600 cloud-init status --wait", _success_exit_codes=[0, 2])
