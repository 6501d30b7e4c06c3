"""Reads /etc/APP/declared.json, which lists everything that the operations of a converge put on the droplet."""

import json
from dataclasses import dataclass
from typing import Any

from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Declared:
    """The things that the site declares, and the foreign things that the operator has accepted."""

    files: frozenset[str]
    """Paths of files. `make plan` compares the content of these files."""
    units: frozenset[str]
    """The units that must be enabled."""
    logins: frozenset[str]
    """The accounts that the site creates."""
    ports: frozenset[int]
    """The TCP ports that the firewall opens."""
    accepted: dict[str, str]
    """The name of each accepted finding, with the reason."""


def load(paths: Paths) -> Declared | None:
    """Read the file. Return None if declared.json is missing or malformed."""
    try:
        document = json.loads(paths.declared.read_text())
        lists = {key: frozenset(document[key]) for key in ("files", "units", "logins", "ports")}
        accepted: dict[str, Any] = document["accepted"]
        return Declared(accepted={str(name): str(reason) for name, reason in accepted.items()}, **lists)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
