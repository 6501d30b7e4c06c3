"""Redis in the data project: its whole data as a file, and how its saves go."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import durable
from .docker import Docker
from .errors import FailedError
from .machine import ENVIRONMENT, Result
from .paths import Paths

MARK_BYTES = 40
RDB = "dump.rdb"
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
        return sum(int(count.removeprefix("keys=").partition(",")[0]) for count in counts)

    def failing_saves(self) -> list[str]:
        """Those that went wrong the last time, by Redis's own names."""
        told = self.info()
        return [name for name in SAVES if told.get(name, "ok") != "ok"]

    def _cli(self, *arguments: str, timeout: float = 60, stdout: Path | None = None) -> Result:
        # The password goes by the client's environment: as an argument, everybody would see it.
        env = {**ENVIRONMENT, "REDISCLI_AUTH": (self.paths.secrets / "redis/password").read_text()}
        container = self.paths.data_container("redis")
        argv = ["docker", "exec", "-i", "--env", "REDISCLI_AUTH", container, "redis-cli", *arguments]
        return self.docker.machine.run(argv, env, timeout, stdout=stdout)


@dataclass(frozen=True)
class Directory:
    """Its files, changed while it is stopped."""

    path: Path

    @property
    def has_former(self) -> bool:
        return any(_aside(self.path / name).exists() for name in FILES)

    def place(self, rdb: Path) -> None:
        """Have it start from a copy of this one; what it had is set aside."""
        fresh = self.path / "dump.rdb.new"
        shutil.copyfile(rdb, fresh)
        os.chown(fresh, self.path.stat().st_uid, self.path.stat().st_gid)
        fresh.chmod(0o600)
        with fresh.open("rb") as content:
            durable.sync(content)
        for there in (self.path / name for name in FILES):
            # Unless it was already: what is there since is a killed run's.
            if there.exists() and not _aside(there).exists():
                durable.rename(there, _aside(there))
            _discard(there)
        durable.rename(fresh, self.path / RDB)

    def put_back(self) -> None:
        """What was set aside."""
        begun = _aside(self.path / RDB).exists()  # else it has not started anew, and what is there was so before
        for there in reversed([self.path / name for name in FILES]):
            if begun or _aside(there).exists():
                _discard(there)
            if _aside(there).exists():
                durable.rename(_aside(there), there)

    def forget_former(self) -> None:
        for name in FILES:
            _discard(_aside(self.path / name))


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}_replaced")


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _length(file: BinaryIO) -> int:
    """Of a dump's data. redis-cli leaves a mark of the stream behind it, with which no append-only file can begin."""
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - MARK_BYTES))
    return whole - MARK_BYTES if re.fullmatch(b"[0-9a-f]{%d}" % MARK_BYTES, file.read()) else whole


def loaded(told: Mapping[str, str]) -> int:
    """How many keys the file had that it started from: one that has expired since is left out."""
    return int(told["rdb_last_load_keys_loaded"]) + int(told["rdb_last_load_keys_expired"])


def facts(info: str) -> dict[str, str]:
    """INFO's answer by its names."""
    lines = (line.partition(":") for line in info.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
