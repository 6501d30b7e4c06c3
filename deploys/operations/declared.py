"""What the site puts on each droplet, as its operations tell it: nobody keeps a list by hand that could go stale.

An operation tells it each time it is looked at, changed or not. At the end declared.json brings it to the droplet,
where stackctl takes everything else for foreign (stackctl/host/foreign.py).
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
    """What is ours on one droplet."""

    files: set[str] = field(default_factory=set)
    units: set[str] = field(default_factory=set)
    """Those that are to be enabled."""
    logins: set[str] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    """TCP ports that the firewall opens."""


_known: dict[str, Known] = defaultdict(Known)


def of(host: Host) -> Known:
    """What was told of this droplet so far."""
    return _known[host.name]


def document(known: Known, accepted: Mapping[str, str]) -> bytes:
    """declared.json, in the shape that stackctl.host.declared reads."""
    lists = {name: sorted(getattr(known, name)) for name in ("files", "units", "logins", "ports")}
    return json.dumps({"version": 1, **lists, "accepted": dict(accepted)}, indent=2).encode() + b"\n"
