"""Redis in the data project: its whole data as a file, and how its saves go."""

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
"""Our own user of Redis, who may do everything. The app's, `default`, may not (deploys/operations/data.py)."""
MARK_BYTES = 40
RDB, FRESH = "dump.rdb", "dump.rdb.new"
# It starts from the append-only file alone, where there is one: that goes first.
FILES = ("appendonlydir", RDB)
# Of a save, of an append-only file's writes and of its compaction.
SAVES = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")


@dataclass(frozen=True)
class Redis:
    docker: Docker
    paths: Paths

    def dump(self, target: Path, seconds: int) -> None:
        """All its keys as they are now, in the format of its own saves. Raises FailedError."""
        ran = self._cli("--rdb", "-", timeout=seconds, stdout=target)
        if ran.code:
            raise FailedError(f"redis-cli --rdb: {ran.reason}", ran.tail())
        with target.open("r+b") as file:
            file.truncate(_length(file))

    def info(self) -> dict[str, str]:
        """What it says of itself. Raises FailedError."""
        ran = self._cli("INFO", "everything")
        found = facts(ran.stdout)
        if ran.code or "redis_version" not in found:
            raise FailedError(f"redis-cli INFO: {ran.reason}", ran.tail())
        return found

    def keys(self) -> int:
        """How many it has, in all of its databases. Raises FailedError."""
        counts = [value for name, value in self.info().items() if re.fullmatch("db[0-9]+", name)]
        return sum(_number(count.removeprefix("keys=").partition(",")[0]) for count in counts)

    def failing_saves(self) -> list[str]:
        """Those that went wrong the last time, by Redis's own names."""
        told = self.info()
        return [name for name in SAVES if told.get(name, "ok") != "ok"]

    def _cli(self, *arguments: str, timeout: float = 60, stdout: Path | None = None) -> Result:
        try:
            password = self.paths.redis_administrator.read_text()
        except FileNotFoundError:
            raise FailedError(f"{self.paths.redis_administrator} is missing. Next: make site") from None
        # It goes by the client's environment: as an argument, everybody would see it.
        env = {**ENVIRONMENT, "REDISCLI_AUTH": password}
        container = self.paths.docker.data_container("redis")
        argv = ["docker", "exec", "-i", "--env", "REDISCLI_AUTH", container, "redis-cli", "--user", ADMINISTRATOR]
        return self.docker.machine.run([*argv, *arguments], env, timeout, stdout=stdout)


@dataclass(frozen=True)
class Directory:
    """Its files, changed while it is stopped. They are uid 999's, so nothing there is believed (openat.py)."""

    path: Path

    @property
    def has_former(self) -> bool:
        with self._opened() as there:
            return any(there.has(_aside(name)) for name in FILES)

    def place(self, rdb: Path) -> None:
        """Have it start from a copy of this one; what it had is set aside."""
        with self._opened() as there, openat.directory(rdb.parent.parent, rdb.parent.name) as backup:
            there.copy(FRESH, backup, rdb.name, backup.size(rdb.name))
            for name in FILES:
                # Unless it was already: what is there since is a killed run's.
                if there.has(name) and not there.has(_aside(name)):
                    there.rename(name, _aside(name))
                there.remove(name)
            there.rename(FRESH, RDB)

    def put_back(self) -> None:
        """What was set aside."""
        with self._opened() as there:
            begun = there.has(_aside(RDB))  # else it has not restarted, and what is there was so before
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
    """Of a dump's data. redis-cli leaves a mark of the stream behind it, with which no append-only file can begin."""
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - MARK_BYTES))
    return whole - MARK_BYTES if re.fullmatch(b"[0-9a-f]{%d}" % MARK_BYTES, file.read()) else whole


def loaded(told: Mapping[str, str]) -> int:
    """How many keys the file had that it started from: one that has expired since is left out."""
    return sum(_number(told.get(f"rdb_last_load_keys_{what}", "")) for what in ("loaded", "expired"))


def _number(told: str) -> int:
    """A count that Redis told. Raises FailedError: a Redis that was broken into says anything."""
    if not re.fullmatch("[0-9]{1,18}", told):
        raise FailedError(f"Redis says {told[:20]!a}, which is no number: stackctl logs redis")
    return int(told)


def facts(info: str) -> dict[str, str]:
    """INFO's answer by its names."""
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
