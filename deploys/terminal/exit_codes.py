"""The exit codes of all commands that run on the operator's machine (docs/reference/exit-codes.md)."""

from __future__ import annotations

from stackctl.core.errors import FailedError, LockedError, PersonNeededError, RefusedError

DONE = 0
FAILED = FailedError.code
REFUSED = RefusedError.code
LOCKED = LockedError.code
NEEDS_A_PERSON = PersonNeededError.code
INTERRUPTED = 130
"""Ctrl-C. Shells use 128 + SIGINT."""
