"""Facts about accounts of people and of programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand


class LoginShell(FactBase[str | None]):
    """A person's login shell. None if the account does not exist."""

    def command(self, login: str) -> StringCommand:
        return StringCommand("getent passwd", QuoteString(login), "|| true")

    def process(self, output: Iterable[str]) -> str | None:
        return next((line.rpartition(":")[2] for line in output), None)


class SystemAccount(NamedTuple):
    """Properties of a program's account."""

    home: str
    shell: str
    groups: frozenset[str]


class SystemUser(FactBase[SystemAccount | None]):
    """A program's account. None if the account does not exist."""

    def command(self, login: str) -> StringCommand:
        name = QuoteString(login)
        return StringCommand("getent passwd", name, "&& id -Gn", name, "|| true")

    def process(self, output: Iterable[str]) -> SystemAccount | None:
        lines = list(output)
        if len(lines) != 2:
            return None
        *_, home, shell = lines[0].split(":")
        return SystemAccount(home, shell, frozenset(lines[1].split()))
