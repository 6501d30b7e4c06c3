"""Lists everything that the site puts on each droplet.

The list is always up to date, because the operations themselves fill the list. Each operation adds its entries whenever
pyinfra prepares the operation, even if nothing changes. The component `declared` writes the list to the droplet as
declared.json. stackctl reports everything else as foreign (stackctl/host/foreign.py).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyinfra.api import Host


@dataclass
class Known:
    """Everything that the site puts on one droplet."""

    files: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)
    """Units that are enabled."""
    logins: set[str] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    """TCP ports that the firewall opens."""


_known: dict[str, Known] = defaultdict(Known)


def of(host: Host) -> Known:
    """Return the list of a droplet with the entries so far."""
    return _known[host.name]


def document(known: Known, accepted: Mapping[str, str]) -> bytes:
    """Return the content of declared.json, in the form that stackctl.host.declared reads."""
    lists = {name: sorted(getattr(known, name)) for name in ("files", "units", "logins", "ports")}
    return json.dumps({"version": 1, **lists, "accepted": dict(accepted)}, indent=2).encode() + b"\n"
