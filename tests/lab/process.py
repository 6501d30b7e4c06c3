"""Which processes are the lab's own: a process id counts only together with the time its process began."""

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.lab.host import LabError
from tests.lab.layout import RUN

PATIENCE = 10.0  # seconds


def pid_file(name: str) -> Path:
    """Where a machine's supervisor is recorded."""
    return RUN / f"{name}.pid"


def record(name: str, pid: int) -> None:
    """Remember a supervisor by its id and its start: after a reboot the number alone may be somebody else's."""
    pid_file(name).write_text(f"{pid} {_started(pid)}\n")


def supervisor(name: str) -> int | None:
    """The process id of a machine's living supervisor."""
    try:
        pid, started = pid_file(name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def nspawn(name: str) -> int | None:
    """The process id of a machine's nspawn."""
    parent = supervisor(name)
    return _only_child(parent) if parent else None


def leader(name: str) -> int | None:
    """The process id, as the host counts, of a machine's PID 1."""
    parent = nspawn(name)
    return _only_child(parent) if parent else None


def kill(name: str) -> None:
    """End a machine's supervisor and with it, at once, all that runs in the machine. Nothing to do when it is off."""
    pid = supervisor(name)
    inner = [process for process in (nspawn(name), leader(name)) if process]
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        for process in (pid, *inner):
            _wait_for_end(process, name)
    pid_file(name).unlink(missing_ok=True)


def _wait_for_end(pid: int, name: str) -> None:
    started = _started(pid)
    deadline = time.monotonic() + PATIENCE
    while started and _started(pid) == started:
        if time.monotonic() > deadline:
            raise LabError(f"{name}: process {pid} doesn't end. Next: look at it with `ps -fp {pid}`.")
        time.sleep(0.02)


def _only_child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None for one that is gone or has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]
