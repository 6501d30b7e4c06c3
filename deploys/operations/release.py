"""What a converge does about the live release: nothing, as long as it runs as declared."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from deploys.facts.stackctl import Status
from deploys.operations import Commands
from deploys.session import LOCK_ID


@operation()
def released_as_declared(environment: bytes, *, after: Sequence[OperationMeta]) -> Commands:
    """Releases the live tag anew when its environment, its Compose file or its containers are not as declared.

    + environment: the next environment, as canonical() spells it
    + after: what places the declaration, so that a plan shows the release before the droplet has it
    """
    status = host.get_fact(Status)
    if not status or not status["release"]:
        host.noop("no release yet: stackctl release TAG")
        return
    live = status["release"]
    declared_anew = not state.is_executing and any(change.will_change for change in after)
    if live["env_sha256"] == sha256(environment).hexdigest() and not status["drift"] and not declared_anew:
        host.noop(f"{live['tag']} runs as declared")
        return
    yield StringCommand("stackctl --under", LOCK_ID, "release", QuoteString(live["tag"]))
