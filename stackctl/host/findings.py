"""Findings are things on the droplet that nobody declared, or that disable something declared."""

import re
from dataclasses import dataclass
from pathlib import Path

from stackctl.core.printable import printable

MOST_SHOWN = 160


@dataclass(frozen=True)
class Finding:
    """One finding. To remove or accept a finding, an operator types the finding's name."""

    name: str
    what: str
    remedy: str
    """`remove`: a converge removes the thing on request. `site`: the next converge repairs the thing. `refuse`: each
    converge refuses to run until a person has repaired the thing. `hand`: only a person can repair the thing."""
    path: str | None = None
    """The file that was found, or the file that causes the finding."""


def named(text: str) -> str:
    """Turn the text into a unique name. Blanks are escaped, so that no name can imitate an accepted name."""
    return "".join(f"\\x{ord(one):02x}" if one.isspace() or one == "\\" else printable(one, "") for one in text)


def can_be_typed(name: str) -> bool:
    """Return whether a name has no character that is special to a shell.

    A name that an operator pastes must never run as a command.
    """
    return bool(re.fullmatch(r"[\w@%+=:,./-]+", name, re.ASCII))


def shown(text: str) -> str:
    """Return the text as one short, printable line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…"


def read(path: Path, most: int = 1 << 18) -> str:
    """Return the beginning of a file that only root can replace, or "" if the file is missing."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def meant(text: str, comment: str = "#") -> list[str]:
    """Return the lines that are neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(tuple(comment))]
