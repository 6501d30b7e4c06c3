"""Made-up backups with chosen dates in the lab's storage, whose objects are files on this machine."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploys.offsite.restic import Repository
from stackctl.backup import manifest
from stackctl.backup.manifest import DUMP, GLOBALS, STATE, Manifest
from tests.lab.layout import WORLD

STORED = WORLD.root / "var/lib/s3"
LISTED_AGAIN_S = 10
"""The time limit for rclone to show a change. rclone reads a directory again after a second (`--dir-cache-time`)."""


def on_disk(repository: Repository) -> Path:
    """Return the directory with the repository's objects."""
    return STORED / urlsplit(repository.url.removeprefix("s3:")).path.lstrip("/")


def send(repository: Repository, parent: Path, number: int, at: datetime) -> None:
    """Send a backup with the date `at`, and give the snapshot's object in the storage the same date."""
    directory = parent / f"{at:%Y%m%dT%H%M%S}.000Z"
    directory.mkdir()
    for name in (DUMP, GLOBALS, STATE):
        (directory / name).write_text(f"{name}, number {number}")
    (directory / manifest.NAME).write_text(manifest_of(directory, number, at).to_json())
    repository.restic("backup", "--host", repository.app, "--tag", directory.name, str(directory))
    (snapshot,) = repository.json("snapshots", "--tag", directory.name, "--path", str(directory))
    os.utime(on_disk(repository) / "snapshots" / snapshot["id"], (at.timestamp(), at.timestamp()))
    deadline = time.monotonic() + LISTED_AGAIN_S
    while abs(repository.stored_at(snapshot["id"]) - at) > timedelta(seconds=1):
        assert time.monotonic() < deadline, "the storage does not show the dates of its files"
        time.sleep(0.2)


def manifest_of(directory: Path, number: int, at: datetime) -> Manifest:
    files = {name: vars(manifest.describe(directory / name)) for name in (DUMP, GLOBALS, STATE)}
    return manifest.parse(json.dumps(document(directory.name, number, at) | {"files": files}), directory)


def document(name: str, number: int, at: datetime) -> dict[str, Any]:
    """Return a manifest without the list of files."""
    return {
        "version": manifest.VERSION,
        "id": name,
        "app": "bot",
        "reason": "nightly",
        "at": at.isoformat(),
        "sequence": number,
        "release": None,
        "schema": None,
        "postgres": {"version": "17.11", "database": "app", "bytes": 1},
        "redis": None,
        "tables": {"public.offers": 1},
        "verified": {"at": at.isoformat(), "seconds": 1.0, "rows": 1},
        "offsite": None,
    }
