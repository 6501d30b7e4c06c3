"""Searches the droplet and the operator's machine for secrets, in every possible spelling."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from pathlib import Path

from testinfra.host import Host

from tests.support.environment import ROOT, Environment

FIND = ROOT / "tests" / "droplet" / "find_secrets.py"
SHORTEST_CORE = 16
ELSEWHERE = ("-/proc", "-/sys", "-/dev", "-/run/docker/netns")
"""The kernel's directories, which store nothing. `Processes` checks argument lists."""


class Secrets(set[str]):
    """A set of secrets that no failing test prints."""

    def __repr__(self) -> str:
        return f"<{len(self)} secrets>"


def core(value: str) -> str:
    """Return the part of a secret that JSON, percent-encoding and the quoting of shells and Python leave unchanged."""
    found: str = max(re.findall(r"[A-Za-z0-9_-]+", value), key=len)
    assert len(found) >= SHORTEST_CORE, "the secret's core is too short for a search"
    return found


def spellings(values: Iterable[str]) -> list[str]:
    """Return the core of each secret and the SHA-256 of the whole secret.

    Return both values also in base64 at every alignment.
    """
    plain = {one for value in values for one in (core(value), sha256(value.encode()).hexdigest())}
    return sorted(plain | {spelt for one in plain for spelt in _base64(one.encode())})


def _base64(core: bytes) -> Iterator[str]:
    for offset in range(3):
        start, end = ceil(offset * 8 / 6), (offset + len(core)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(b"\0" * offset + core).decode()[start:end]


def in_text(text: bytes, values: Iterable[str]) -> list[str]:
    """Return the lines that contain one of the values."""
    needles = re.compile(b"|".join(re.escape(one.encode()) for one in spellings(values)))
    return [line.decode(errors="replace")[:300] for line in text.splitlines() if needles.search(line)]


@dataclass(frozen=True)
class Search:
    """A search for what has changed since a given time, on the droplet and on the operator's machine."""

    env: Environment
    droplet: Host
    since: float

    def files(self, values: Iterable[str]) -> set[str]:
        """Return the droplet's changed files that contain a secret: images, layers, logs, histories, `/tmp`."""
        return self._lines(values, "changed", str(self.since), "/", *ELSEWHERE)

    def journal(self, values: Iterable[str]) -> int:
        """Count the journal's lines that contain a secret.

        Search every field, because any field may contain a program's arguments.
        """
        begin = f"--since=@{int(self.since)}"
        (count,) = self._lines(values, "command", "journalctl", "--no-pager", "--all", "--output=export", begin)
        return int(count)

    def operator(self, values: Iterable[str]) -> set[str]:
        """Return the operator's files that contain a secret: the checkout, caches, SSH's files, histories, `/tmp`."""
        home = Path.home()
        kept = [home / ".ssh", home / ".cache", home / ".local" / "state", *home.glob(".*history")]
        folders = [ROOT, Path("/tmp"), *(path for path in kept if path.is_dir())]
        single = {str(path) for path in kept if path.is_file() and in_text(path.read_bytes(), values)}
        # The lab's root file systems do not belong to the operator's machine.
        search = ["changed", str(self.since), *map(str, folders), f"-{home / '.cache' / 'marketplace-infra'}"]
        command = [sys.executable, str(FIND), *search]
        found = subprocess.run(command, input=self._needles(values), capture_output=True, check=True)
        return single | {*found.stdout.decode().splitlines()}

    def _lines(self, values: Iterable[str], *search: str) -> set[str]:
        found = self.env.run_python(self.droplet, FIND, *search, stdin=self._needles(values))
        assert found.returncode == 0, found.stderr.decode()[-2000:]
        return {*found.stdout.decode().splitlines()}

    @staticmethod
    def _needles(values: Iterable[str]) -> bytes:
        return "\0".join(spellings(values)).encode()


@dataclass
class Processes:
    """The argument lists of all processes on this machine, including the lab's processes. The lab shares the kernel."""

    seen: set[bytes] = field(default_factory=set)
    looks: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()
        watching = threading.Thread(target=self._watch, args=[ended])
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()

    def _watch(self, ended: threading.Event) -> None:
        """Read each new process repeatedly for a second, because a process starts with its parent's arguments."""
        known: dict[str, float] = {}
        while not ended.wait(0.02):
            self.looks += 1
            now = time.monotonic()
            there = {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
            known = {pid: known.get(pid, now) for pid in there}
            for pid in (pid for pid in there if now - known[pid] < 1):
                with suppress(OSError):
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
