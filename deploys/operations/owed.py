"""Reloads that are owed: what changed on disk and is not in force yet.

The droplet remembers the debt in a file, since a run can die between a change and its reload, and the next run sees
no difference any more. `place(owes=…)` takes on the debt, `settle` pays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.operation import OperationMeta

from deploys.facts.files import Owed
from deploys.operations import Commands


@operation()
def settle(debt: str, commands: Sequence[str], *, after: Sequence[OperationMeta]) -> Commands:
    """Runs `commands` when `debt` (the marker's path) is there, then removes it.

    + after: the operations that may take on the debt, so that a plan shows the reload before the debt exists
    """
    marker = PurePosixPath(debt)
    owed = marker.name in host.get_fact(Owed, directory=str(marker.parent))
    if not owed and (state.is_executing or not any(change.will_change for change in after)):
        host.noop(f"{marker.name} is in force")
        return
    for command in commands:
        yield StringCommand(command)
    yield StringCommand("rm -f", QuoteString(debt))
