"""How GitHub's runner reads a log."""

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
    assert token is None, "commands would be stopped for the steps after it"
    return found
