"""The client of Redis in the data project: dumps, reads and replaces the data of Redis."""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from stackctl.core.program import ENVIRONMENT, Result
from stackctl.services.docker import Docker

ADMINISTRATOR = "stackctl"
"""Our own Redis user, which may do everything. The app's user `default` is restricted (deploys/operations/data.py)."""
MARK_BYTES = 40
RDB, FRESH = "dump.rdb", "dump.rdb.new"
# If Redis has an append-only file, Redis loads no other file. So the append-only file is moved first.
FILES = ("appendonlydir", RDB)
# The fields with the results of the last snapshot, the last write to the append-only file, and the last compaction.
SAVES = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")


@dataclass(frozen=True)
class Redis:
    """The Redis of the data project."""

    docker: Docker
    paths: Paths

    def dump(self, target: Path, seconds: int) -> None:
        """Write all keys to a file in RDB format. Raises FailedError."""
        ran = self._cli("--rdb", "-", timeout=seconds, stdout=target)
        if ran.code:
            raise FailedError(f"redis-cli --rdb failed: {ran.reason}", ran.tail())
        with target.open("r+b") as file:
            file.truncate(_length(file))

    def info(self) -> dict[str, str]:
        """Return the fields of Redis's answer to INFO. Raises FailedError."""
        ran = self._cli("INFO", "everything")
        found = facts(ran.stdout)
        if ran.code or "redis_version" not in found:
            raise FailedError(f"redis-cli INFO failed: {ran.reason}", ran.tail())
        return found

    def keys(self) -> int:
        """Count the keys in all databases. Raises FailedError."""
        counts = [value for name, value in self.info().items() if re.fullmatch("db[0-9]+", name)]
        return sum(_number(count.removeprefix("keys=").partition(",")[0]) for count in counts)

    def failing_saves(self) -> list[str]:
        """Return the names of the SAVES whose last attempt failed."""
        told = self.info()
        return [name for name in SAVES if told.get(name, "ok") != "ok"]

    def _cli(self, *arguments: str, timeout: float = 60, stdout: Path | None = None) -> Result:
        try:
            password = self.paths.redis_administrator.read_text()
        except FileNotFoundError:
            raise FailedError(f"{self.paths.redis_administrator} is missing", next_step="make site") from None
        # The password goes into the client's environment, because all users could read an argument.
        env = {**ENVIRONMENT, "REDISCLI_AUTH": password}
        container = self.paths.docker.data_container("redis")
        argv = ["docker", "exec", "-i", "--env", "REDISCLI_AUTH", container, "redis-cli", "--user", ADMINISTRATOR]
        return self.docker.machine.run([*argv, *arguments], env, timeout, stdout=stdout)


@dataclass(frozen=True)
class Directory:
    """The files of a stopped Redis. Redis's files belong to uid 999, so these files are not trusted (openat.py)."""

    path: Path

    @property
    def has_former(self) -> bool:
        with self._opened() as there:
            return any(there.has(_aside(name)) for name in FILES)

    def place(self, rdb: Path) -> None:
        """Rename the current files of Redis, and put a copy of this dump in their place."""
        with self._opened() as there, openat.directory(rdb.parent.parent, rdb.parent.name) as backup:
            there.copy(FRESH, backup, rdb.name, backup.size(rdb.name))
            for name in FILES:
                # If the renamed file exists already, a killed run has renamed it, and the current file is that run's
                # copy.
                if there.has(name) and not there.has(_aside(name)):
                    there.rename(name, _aside(name))
                there.remove(name)
            there.rename(FRESH, RDB)

    def put_back(self) -> None:
        """Restore the files that `place` has renamed. If `place` was killed, remove its unfinished copy."""
        with self._opened() as there:
            there.remove(FRESH)
            begun = there.has(_aside(RDB))  # without a renamed RDB file, the current files were never replaced
            for name in reversed(FILES):
                if begun or there.has(_aside(name)):
                    there.remove(name)
                if there.has(_aside(name)):
                    there.rename(_aside(name), name)

    def forget_former(self) -> None:
        with self._opened() as there:
            for name in FILES:
                there.remove(_aside(name))

    def _opened(self) -> AbstractContextManager[openat.Directory]:
        return openat.directory(self.path.parent, self.path.name)


def _aside(name: str) -> str:
    return f"{name}_replaced"


def _length(file: BinaryIO) -> int:
    """Return the length of a dump without the mark that redis-cli appends.

    The mark would damage an append-only file.
    """
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - MARK_BYTES))
    return whole - MARK_BYTES if re.fullmatch(b"[0-9a-f]{%d}" % MARK_BYTES, file.read()) else whole


def loaded(told: Mapping[str, str]) -> int:
    """Return how many keys were in the file that Redis loaded at its start. Redis counts expired keys separately."""
    return sum(_number(told.get(f"rdb_last_load_keys_{what}", "")) for what in ("loaded", "expired"))


def _number(told: str) -> int:
    """Parse a number from Redis, which may be compromised. Raises FailedError."""
    if not re.fullmatch("[0-9]{1,18}", told):
        raise FailedError(f"Redis reports {told[:20]!a}, which is not a number", next_step="stackctl logs redis")
    return int(told)


def facts(info: str) -> dict[str, str]:
    """Parse the answer to INFO."""
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
