"""An account that no person has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand


class Service(NamedTuple):
    home: str
    shell: str
    groups: frozenset[str]


class ServiceAccount(FactBase[Service | None]):
    """A service's account; None where there is no such account."""

    def command(self, login: str) -> StringCommand:
        name = QuoteString(login)
        return StringCommand("getent passwd", name, "&& id -Gn", name, "|| true")

    def process(self, output: Iterable[str]) -> Service | None:
        lines = list(output)
        if len(lines) != 2:
            return None
        *_, home, shell = lines[0].split(":")
        return Service(home, shell, frozenset(lines[1].split()))
