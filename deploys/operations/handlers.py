"""Handlers. A handler has the commands that put a change in force.

An operation that notifies a handler first writes a marker file on the droplet. A handler stays pending until the
handler has run. If a converge dies between a change and the change's handler, the next converge sees no difference, but
still runs the handler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from deploys.facts.files import PendingHandlers
from deploys.operations import Commands
from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Handler:
    """The commands that put a change in force. The marker file `name` exists while the handler is pending."""

    name: str
    commands: Sequence[str]

    @property
    def marker(self) -> str:
        """The path of the file that exists while the handler is pending."""
        return str(Paths(host.data.app).pending_handlers / self.name)

    @property
    def pending(self) -> bool:
        """Whether the handler's marker file exists on the droplet."""
        return self.name in host.get_fact(PendingHandlers, directory=str(PurePosixPath(self.marker).parent))

    def notify(self) -> StringCommand:
        """Return the command that marks the handler as pending."""
        return StringCommand("install -D -m 600 /dev/null", QuoteString(self.marker))

    def done(self) -> StringCommand:
        """Return the command that removes the handler's marker."""
        return StringCommand("rm -f", QuoteString(self.marker))


@operation()
def run_handler(handler: Handler, *, after: Sequence[OperationMeta]) -> Commands:
    """Run a pending handler.

    + after: the operations that may notify the handler. If one of these operations would change something, a plan shows
      the handler's commands, although the handler is not pending yet.
    """
    if not handler.pending and (state.is_executing or not any(change.will_change for change in after)):
        host.noop(f"{handler.name} is not pending")
        return
    for command in handler.commands:
        yield StringCommand(command)
    yield handler.done()
