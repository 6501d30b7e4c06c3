"""Whoever types a command is asked before it does what can't be taken back."""

from __future__ import annotations

import sys


def refusal(question: str, otherwise: str = "") -> str:
    """Why it isn't to be done; empty once somebody said yes. `otherwise`: what says yes where nobody can be asked."""
    if not sys.stdin.isatty():
        return f"nobody can be asked, standard input is no terminal{otherwise}"
    if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
        return "you did not say yes"
    return ""
