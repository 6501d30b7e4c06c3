"""Asks for confirmation before a command does something that cannot be undone."""

from __future__ import annotations

import sys

from stackctl.core.errors import RefusedError


def confirm(question: str, otherwise: str = "") -> None:
    """Ask the operator a yes-no question. Raises RefusedError unless the answer is yes.

    Without a terminal nobody can answer. The error message then ends with `otherwise`, which says how to confirm in
    advance.
    """
    if not sys.stdin or not sys.stdin.isatty():
        raise RefusedError(f"cannot ask for confirmation, because standard input is not a terminal{otherwise}")
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C
        print()
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("you did not answer yes")
