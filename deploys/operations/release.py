"""The operation for the live release. A converge releases the live tag again if the app does not run as declared."""

from __future__ import annotations

from typing import Any

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation

from deploys.facts import stackctl
from deploys.operations import Commands
from deploys.operations.this_run import ME
from stackctl.services.compose import stack_sha256


@operation()
def current_release(compose_files: bytes, *, environment: bytes, worker: bool) -> Commands:
    """Release the live tag again if its containers are unhealthy, or were not created from the declared files.

    + compose_files: app.yaml, followed by worker.yaml if there is a worker
    + environment: the app's next environment, in the form that stackctl.app.app_env.canonical returns
    """
    status = stackctl.status()
    if not status and not state.is_executing:
        host.noop("nothing is installed yet")
        return
    if not status or (not status["release"] and (status["active"] or any(status["colours"].values()))):
        # The recorded release is not live. `stackctl status` reports this problem with a remedy, and fails.
        yield StringCommand("stackctl status")
        return
    live = status["release"]
    if not live:
        host.noop("no release yet. Next: make release TAG=…")
        return
    declared = stack_sha256(compose_files, environment, live["image"])
    parts = [status["colours"][status["active"]], *([status.get("worker")] if worker else [])]
    if not status["drift"] and all(_made_from(part) == {declared} for part in parts):
        host.noop(f"{live['tag']} runs as declared")
        return
    yield StringCommand("stackctl --lock-id", ME.id, "release", QuoteString(live["tag"]))


def _made_from(part: dict[str, Any] | None) -> set[str]:
    return {container["sha256"] for container in part["containers"]} if part else set()
