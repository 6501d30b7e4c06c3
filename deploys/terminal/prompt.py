"""Whoever types a command is asked before it does what can't be taken back."""

from __future__ import annotations

import sys


def refusal(question: str, otherwise: str = "") -> str:
    """Why it isn't to be done; empty once somebody said yes. `otherwise`: what says yes where nobody can be asked."""
    if not sys.stdin or not sys.stdin.isatty():
        return f"nobody can be asked, standard input is no terminal{otherwise}"
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C
        print()
        answer = ""
    return "" if answer.strip().lower() in {"y", "yes"} else "you did not say yes"
