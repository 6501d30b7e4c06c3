"""Read a log as GitHub's runner does."""

from __future__ import annotations


def obeyed(log: str) -> list[str]:
    """Return the log's commands as actions/runner finds them (ActionCommand.cs, ActionCommandManager.cs)."""
    found, token = [], None
    for line in log.splitlines():
        if token:
            token = None if line.strip() == f"::{token}::" else token
        elif line.strip().startswith("::stop-commands::"):
            token = line.strip().removeprefix("::stop-commands::")
        elif line.strip().startswith("::") or "##[" in line:
            found.append(line)
    assert token is None, "the log would turn off workflow commands for later steps"
    return found
