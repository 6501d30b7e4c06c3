"""backup: PostgreSQL's dump and globals, with a manifest that says what they are.

What stands under /opt/backups/ID was written whole, and its dump can be read; it is named so by a rename at the end.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import durable, state
from .config import Data
from .errors import FailedError, RefusedError
from .postgres import Postgres, Room
from .stack import Stack

DUMP_TIMEOUT = 3600
SPARE = 256 << 20
"""Bytes that stay free beside a backup and an image: a full disk stops PostgreSQL."""
KEPT_OF_RELEASES = 3
UNFINISHED = ".partial"


@dataclass(frozen=True)
class Backup:
    """One that is whole."""

    directory: Path
    size: int
    """Of the dump, in bytes."""


def check_room(stack: Stack, room: Room) -> None:
    """RefusedError when a dump might fill the disk.

    It is compressed, and indexes aren't in it: it is smaller than the database.
    """
    stack.paths.backups.mkdir(mode=0o700, parents=True, exist_ok=True)
    free, needed = stack.machine.free(stack.paths.backups), room.database_bytes + SPARE
    if free < needed:
        raise RefusedError(
            f"{stack.paths.backups} has {free >> 20} MiB left, a backup may need {needed >> 20}: make room there"
        )


def take(stack: Stack, data: Data, backup_id: str, reason: str) -> Backup:
    """Make one. `reason`: "release" or "asked"."""
    postgres = Postgres(stack.docker, stack.paths, data)
    postgres.end_dumps()
    _reap(stack.paths.backups)
    place = stack.paths.backups / f"{backup_id}{UNFINISHED}"
    place.mkdir(mode=0o700, parents=True)
    try:
        dump, roles = place / "postgres.dump", place / "globals.sql"
        postgres.dump(dump, DUMP_TIMEOUT)
        postgres.globals(roles, DUMP_TIMEOUT)
        tables = [entry for entry in postgres.listing(dump) if " TABLE DATA " in entry]
        live = state.load(stack.paths).release
        manifest = {
            "version": 1,
            "id": backup_id,
            "app": stack.paths.app,
            "reason": reason,
            "at": stack.machine.now().isoformat(timespec="seconds"),
            "release": live.tag if live else None,
            "schema": live.schema if live else None,
            "postgres": {"version": postgres.query("SHOW server_version"), "database": data.database},
            "tables": len(tables),
            "files": {file.name: _described(file) for file in (dump, roles)},
        }
        durable.write(place / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
        whole = place.with_name(backup_id)
        durable.rename(place, whole)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Backup(whole, (whole / dump.name).stat().st_size)


def prune(backups: Path, newest: Path) -> None:
    """Remove what releases made, but for the last ones; never `newest`, whatever the clock said when it was made."""
    made = sorted(path for path in _whole(backups) if _manifest(path).get("reason") == "release" and path != newest)
    for directory in made[: 1 - KEPT_OF_RELEASES]:
        shutil.rmtree(directory)


def _whole(backups: Path) -> Iterator[Path]:
    return (path.parent for path in backups.glob("*/manifest.json") if not path.parent.name.endswith(UNFINISHED))


def _manifest(directory: Path) -> dict[str, object]:
    try:
        return dict(json.loads((directory / "manifest.json").read_text()))
    except (OSError, ValueError):
        return {}


def _reap(backups: Path) -> None:
    """What a killed call left."""
    for directory in backups.glob(f"*{UNFINISHED}"):
        shutil.rmtree(directory)


def _described(file: Path) -> dict[str, object]:
    size = file.stat().st_size
    if not size:
        raise FailedError(f"{file.name} is empty: see the log of PostgreSQL's container")
    with file.open("rb") as content:
        durable.sync(content)
        return {"bytes": size, "sha256": hashlib.file_digest(content, "sha256").hexdigest()}
