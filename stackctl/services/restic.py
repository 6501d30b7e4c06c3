"""The environment, exit codes and errors of restic, for the droplet and for the operator's machine."""

import json
import re

from stackctl.core.program import TIMED_OUT, Result
from stackctl.services import s3

NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
"""Exit codes of restic since 0.17."""


def environment(repository: str, password: str, key: s3.Key) -> dict[str, str]:
    """Return the environment variables that open a repository. Arguments would be visible to other processes."""
    return {
        "RESTIC_REPOSITORY": repository,
        "RESTIC_PASSWORD": password,
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
    }


def reason(ran: Result) -> str:
    """Return the last cause that restic printed: the holder of a lock, or the error that made restic retry."""
    said = [_message(line) for line in ran.stderr.splitlines()]
    tried = [match[1] for line in said if (match := re.search(r"retrying after [^:]+: (.+)", line))]
    fatal = [line.removeprefix("Fatal: ") for line in said if line.startswith("Fatal: ")]
    locked = [line for line in said if "already locked" in line]
    return (locked or (tried if ran.code == TIMED_OUT else fatal) or [ran.reason])[-1].removeprefix("Fatal: ")


def _message(line: str) -> str:
    """Return the message in a line of restic's output. With --json, restic prints errors as JSON."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    return str(document.get("message", line)) if isinstance(document, dict) else line
