"""Compares a judge's complaints with the committed waivers.

The audit fails for a complaint without a waiver, and for an unused waiver.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WAIVERS = Path(__file__).with_name("waivers.toml")


@dataclass(frozen=True)
class Waiver:
    """An accepted complaint of a judge, with the reason."""

    judge: str
    id: str
    reason: str
    only: Collection[str] = ()
    """The only environments to which the waiver applies. If it is empty, the waiver applies to every environment."""


@cache
def waivers() -> tuple[Waiver, ...]:
    found = tomllib.loads(WAIVERS.read_text())
    return tuple(Waiver(**entry) for kind in ("unseen", "choice") for entry in found[kind])


def waived(judge: str, environment: str) -> frozenset[str]:
    """Return the judge's complaints that are waived in this environment."""
    return frozenset(one.id for one in waivers() if one.judge == judge and (not one.only or environment in one.only))


def objections(complaints: Collection[str], waived: Collection[str]) -> list[str]:
    """Return the reasons why a verdict fails, one line for each reason.

    >>> objections({"a", "b"}, {"b", "c"})
    ['a', 'c: waived without need, take it out of waivers.toml']
    """
    unwaived = sorted(set(complaints) - set(waived))
    return unwaived + [
        f"{one}: waived without need, take it out of waivers.toml" for one in sorted(set(waived) - set(complaints))
    ]


@dataclass(frozen=True)
class Row:
    """A line of the audit's table."""

    judge: str
    figure: str
    goal: str
    waived: int
