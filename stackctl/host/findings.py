"""A finding: one thing on the droplet that nobody declared, or that switches off what was declared."""

import re
from dataclasses import dataclass
from pathlib import Path

from stackctl.core.printable import printable

MOST_SHOWN = 160


@dataclass(frozen=True)
class Finding:
    """`name` is what an operator types to have it removed, or writes down to accept it."""

    name: str
    what: str
    remedy: str
    """`remove`: on request. `site`: the next converge mends it. `refuse`: a converge refuses until it is gone.
    `hand`: only a person can."""
    path: str | None = None
    """The file, or another file that is the cause."""


def named(text: str) -> str:
    """A name that no other has. Blanks are escaped, so that it can't pass for one that was accepted."""
    return "".join(f"\\x{ord(one):02x}" if one.isspace() or one == "\\" else printable(one, "") for one in text)


def can_be_typed(name: str) -> bool:
    """Whether a shell takes the name as it is; one of a stranger's must not be a command where it is pasted."""
    return bool(re.fullmatch(r"[\w@%+=:,./-]+", name, re.ASCII))


def shown(text: str) -> str:
    """One short printable line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…"


def read(path: Path, most: int = 1 << 18) -> str:
    """The beginning of a file that root alone can replace; empty when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def meant(text: str, comment: str = "#") -> list[str]:
    """The lines that are neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(tuple(comment))]
