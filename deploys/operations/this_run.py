"""This run of a converge: who it is, and what its operations found before the first change."""

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
"""The variable by which deploys/converge/plan.py names the file that it reads what is foreign from."""


ME = Holder.new(f"converge by {getpass.getuser()}@{socket.gethostname()}")
"""This run, in the locks that it holds; by its id `stackctl --under` works under them."""


refusals: dict[str, str] = {}
"""Why a host must not be changed; a dry run goes on."""
_foreign: dict[str, list[dict[str, Any]]] = {}


def refuse_to_begin(host: Host, cause: str) -> None:
    """Have the run end before its first change."""
    refusals[host.name] = cause


def tell_foreign(host: Host, found: list[dict[str, Any]]) -> None:
    """Say what is foreign: at the plan's end where deploys/converge/plan.py asks for it, here and now otherwise."""
    _foreign[host.name] = found
    if listed := os.environ.get(FOREIGN_LIST):
        Path(listed).write_text(json.dumps(_foreign))
        return
    for one in found:
        host.log(f"foreign: {one['name']}: {one['what']}: {one['next']}", logger.warning)
