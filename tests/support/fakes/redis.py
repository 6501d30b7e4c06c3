"""Redis of a droplet in memory. A dump of Redis is a real file that contains the number of keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stackctl.core.program import Result


@dataclass
class Redis:
    rdb: Path = field(compare=False)
    """The file that Redis writes when it stops and loads when it starts."""
    info: dict[str, str] = field(default_factory=lambda: {"redis_version": "8.0.2", "keys": "5"})
    """The fields that INFO reports, and the number of keys."""
    keys_lost: int = 0
    """The number of keys that a throwaway Redis loses when it loads a dump."""

    def cli(self, stdout: Path | None) -> Result:
        """Return the answer to `INFO`, or write the dump to a file."""
        keys = self.info.get("keys", "0")
        if stdout:
            stdout.write_text(self.info["keys"])
        told = {**self.info, "db0": f"keys={keys},expires=1"}
        told |= {"rdb_last_load_keys_loaded": keys, "rdb_last_load_keys_expired": "0"}
        return Result(0, "".join(f"{name}:{value}\r\n" for name, value in told.items()))

    def stop(self) -> None:
        self.rdb.write_text(self.info["keys"])

    def start(self) -> None:
        if self.rdb.exists():
            self.info["keys"] = self.rdb.read_text()

    def loaded(self, keys: int) -> Result:
        """Return the answer to `INFO persistence` of a throwaway Redis whose dump had this many keys."""
        return Result(0, f"rdb_last_load_keys_expired:1\r\nrdb_last_load_keys_loaded:{keys - self.keys_lost - 1}\r\n")
