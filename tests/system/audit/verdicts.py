"""What a judge said, held against the committed waivers: what isn't waived fails, and so does a waiver nobody needs."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WAIVERS = Path(__file__).with_name("waivers.toml")


@dataclass(frozen=True)
class Waiver:
    """A complaint we live with."""

    judge: str
    id: str
    reason: str
    only: str = ""
    """The only environment whose machines cannot show it; elsewhere it has to hold. Empty: it is a choice."""


@cache
def waivers() -> tuple[Waiver, ...]:
    found = tomllib.loads(WAIVERS.read_text())
    return tuple(Waiver(**entry) for kind in ("unseen", "choice") for entry in found[kind])


def waived(judge: str, environment: str) -> frozenset[str]:
    """Return the judge's complaints that are waived in this environment."""
    return frozenset(one.id for one in waivers() if one.judge == judge and one.only in {"", environment})


def objections(complaints: Collection[str], waived: Collection[str]) -> list[str]:
    """Why a verdict doesn't pass, a line each.

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
