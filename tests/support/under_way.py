"""A release or backup that an operator follows over SSH, and ways to interrupt it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackctl.core.paths import Paths
from tests.lab.layout import by_name
from tests.support.environment import ROOT

DROPLET = by_name("droplet1")
HISTORY = DROPLET.root / Paths("toogoodtogo").history.relative_to("/")
RELEASE = b"python3\0/usr/local/bin/stackctl\0--run\0"
BACKUP = b"python3\0/usr/local/bin/stackctl\0backup\0"
"""The start of /proc/PID/cmdline of the stackctl that does the work, not of its follower or of systemd-run."""
ENDS_WITHIN_S = 300.0


@dataclass
class UnderWay:
    """A run that was just started. Events come from the droplet's disk, so the run never waits for the test."""

    arguments: tuple[str, ...]
    program: bytes = RELEASE
    _offset: int = field(init=False)
    _worker: int | None = field(init=False, default=None)
    _client: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self._offset = HISTORY.stat().st_size if HISTORY.exists() else 0
        argv = ["ssh", "-F", ".lab/ssh_config", DROPLET.name, "sudo", "stackctl", *self.arguments]
        self._client = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def reach(self, step: str) -> None:
        """Return as soon as this step begins."""
        needle = f'"step": "{step}", "state": "start"'.encode()
        deadline = time.monotonic() + ENDS_WITHIN_S
        while needle not in self._history():
            self._worker = self._worker or _pid(self.program)  # during the step, a search would be too late
            over = self._client.poll() is not None and needle not in self._history()
            assert not over, f"the run ended before {step}: {self.end()}"
            assert time.monotonic() < deadline, f"{step} was not reached"
            time.sleep(0.001)

    def kill(self) -> None:
        """Send SIGKILL to the program that does the work."""
        assert self._worker, f"no such program runs: {self.program!r}"
        with suppress(ProcessLookupError):  # the process has just ended
            os.kill(self._worker, signal.SIGKILL)

    def hang_up(self) -> None:
        """End the follower's connection."""
        self._client.kill()
        self._client.wait()

    def end(self) -> tuple[int, str]:
        """Return the follower's exit code and output."""
        output, _ = self._client.communicate(timeout=ENDS_WITHIN_S)
        return self._client.returncode, output

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._history().splitlines() if line.endswith(b"}")]

    def last_step(self) -> str:
        """Return the last step of the run."""
        return str(next(event["step"] for event in reversed(self.events()) if event["op"] == self.arguments[0]))

    def _history(self) -> bytes:
        with HISTORY.open("rb") as history:
            history.seek(self._offset)
            return history.read()


def _pid(program: bytes) -> int | None:
    """Return the process ID on this machine, which sees the processes of all droplets."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            here = (directory / "root/etc/hostname").read_text().strip() == DROPLET.name
            if here and program in (directory / "cmdline").read_bytes():
                return int(directory.name)
        except OSError:
            continue  # the process has just ended
    return None
