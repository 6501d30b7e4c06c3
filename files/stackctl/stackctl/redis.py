"""Redis in the data project: its whole data as a file, and how its saves go."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .docker import Docker
from .errors import FailedError
from .machine import ENVIRONMENT, Result
from .paths import Paths

MARK_BYTES = 40
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
        return sum(int(count.removeprefix("keys=").partition(",")[0]) for count in counts)

    def failing_saves(self) -> list[str]:
        """Those that went wrong the last time, by Redis's own names."""
        told = self.info()
        return [name for name in SAVES if told.get(name, "ok") != "ok"]

    def _cli(self, *arguments: str, timeout: float = 60, stdout: Path | None = None) -> Result:
        # The password goes by the client's environment: as an argument, everybody would see it.
        env = {**ENVIRONMENT, "REDISCLI_AUTH": (self.paths.secrets / "redis/password").read_text()}
        container = f"{self.paths.data_project}-redis-1"
        argv = ["docker", "exec", "-i", "--env", "REDISCLI_AUTH", container, "redis-cli", *arguments]
        return self.docker.machine.run(argv, env, timeout, stdout=stdout)


def _length(file: BinaryIO) -> int:
    """Of a dump's data. redis-cli leaves a mark of the stream behind it, with which no append-only file can begin."""
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - MARK_BYTES))
    return whole - MARK_BYTES if re.fullmatch(b"[0-9a-f]{%d}" % MARK_BYTES, file.read()) else whole


def facts(info: str) -> dict[str, str]:
    """INFO's answer by its names."""
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
