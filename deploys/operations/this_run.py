"""The running converge: its name as the holder of locks, and its findings before the first change."""

from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra import logger

from stackctl.core.lock import Holder

if TYPE_CHECKING:
    from pyinfra.api import Host

FOREIGN_LIST = "FOREIGN_LIST"
"""Environment variable with the path of the file in which deploys/converge/plan.py expects the foreign objects."""

ME = Holder.new(f"converge by {getpass.getuser()}@{socket.gethostname()}")
"""This run, as the holder of its locks. `stackctl --lock-id ID` with this run's ID works under the same locks."""

refusals: dict[str, str] = {}
"""The reason why a host must not be changed, by the host's name. A dry run continues despite a reason."""
_foreign: dict[str, list[dict[str, Any]]] = {}


def refuse_to_begin(host: Host, cause: str) -> None:
    """End the run before its first change, with `cause` as the message."""
    refusals[host.name] = cause


def tell_foreign(host: Host, found: list[dict[str, Any]]) -> None:
    """Report foreign objects on the terminal, or in a file if deploys/converge/plan.py asks for a file."""
    _foreign[host.name] = found
    if listed := os.environ.get(FOREIGN_LIST):
        Path(listed).write_text(json.dumps(_foreign))
        return
    for one in found:
        host.log(f"foreign: {one['name']}: {one['what']}. Next: {one['next']}", logger.warning)
