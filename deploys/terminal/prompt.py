"""Asks for confirmation before a command does something that cannot be undone."""

from __future__ import annotations

import sys

from stackctl.core.errors import RefusedError


def confirm(question: str, otherwise: str = "") -> None:
    """Ask, and raise RefusedError unless the answer is yes.

    `otherwise` says how to confirm in advance, for a run without a terminal.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise RefusedError(f"cannot ask for confirmation, because standard input is no terminal{otherwise}")
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C
        print()
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("you did not answer yes")
