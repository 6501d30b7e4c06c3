"""/etc/APP/declared.json: what the site put on the droplet, as its own operations told it (operations/declared.py)."""

import json
from dataclasses import dataclass
from typing import Any

from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Declared:
    """What is known to be ours, and what somebody accepted."""

    files: frozenset[str]
    """Paths. Whether their content is as declared is for `make plan` to say."""
    units: frozenset[str]
    """The units that are to be enabled."""
    logins: frozenset[str]
    """The accounts that the site made."""
    ports: frozenset[int]
    """The TCP ports that the firewall opens."""
    accepted: dict[str, str]
    """The reason by the name of a finding."""


def load(paths: Paths) -> Declared | None:
    """None when there is no such file, or when it is not what the site writes."""
    try:
        document = json.loads(paths.declared.read_text())
        lists = {key: frozenset(document[key]) for key in ("files", "units", "logins", "ports")}
        accepted: dict[str, Any] = document["accepted"]
        return Declared(accepted={str(name): str(reason) for name, reason in accepted.items()}, **lists)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
