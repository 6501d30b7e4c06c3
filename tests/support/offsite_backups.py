"""Helpers for tests of the off-site storage. The helpers send, date or plant backups."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import DUMP, NAME, Manifest
from stackctl.backup.offsite import download, upload
from stackctl.core import config
from stackctl.core.events import RunLog
from tests.support.fakes.droplet import Droplet
from tests.support.manifests import NOON, made

FATAL = "Fatal: unable to open config file: context canceled\nIs there a repository at the following location?\ns3:x"


TRIED = "Stat(<config/>) returned error, retrying after 1.4s: dial tcp 10.0.0.1:9000: connect: connection refused"


def stack(live: Droplet) -> Stack:
    paths = live.paths
    return Stack(paths, config.load(paths), live, RunLog(None, "backup", live, StringIO()))


def kept(live: Droplet, sequence: int = 1, **more: Any) -> tuple[Manifest, Path]:
    """Store a complete backup on the droplet."""
    told = made(sequence, **more)
    directory = live.paths.backup(told.id)
    directory.mkdir(parents=True)
    for name in told.files:
        (directory / name).write_text(json.dumps(told.tables) + " " * sequence)
    told = made(sequence, **{"files": {name: manifest.describe(directory / name) for name in told.files}, **more})
    manifest.save(directory, told)
    return told, directory


def sent(live: Droplet, sequence: int = 1, **more: Any) -> Manifest:
    told, directory = kept(live, sequence, **more)
    upload.upload(stack(live), told, directory)
    return told


DAY = timedelta(days=1)


def planted(live: Droplet, told: Manifest, *, dump: str = "a dump", stored: datetime | None = None) -> str:
    """Plant a snapshot that matches its own manifest, as an intruder would without stackctl. Return its ID."""
    path = live.paths.backup(told.id)
    name = f"{len(live.storage.snapshots):08x}{'f' * 56}"
    contents = {file: dump.encode() if file == DUMP else file.encode() for file in told.files}
    files = {
        file: manifest.File(len(content), hashlib.sha256(content).hexdigest()) for file, content in contents.items()
    }
    told = replace(told, files=files)
    live.storage.snapshots.append(
        {
            "id": name,
            "time": "2027-01-01T00:00:00Z",
            "hostname": "bot",
            "tags": [told.id],
            "paths": [str(path)],
            "files": {**contents, NAME: told.to_json().encode()},
            "stored": stored or live.storage.now,
        }
    )
    return name


def nights(live: Droplet, *numbers: int) -> None:
    """Send backups, each made on the day of its number and stored an hour later.

    Delete these backups from the droplet.
    """
    for number in numbers:
        at = NOON + number * DAY
        planted(live, dated(number), stored=at + timedelta(hours=1))


def dated(number: int, sequence: int | None = None) -> Manifest:
    at = NOON + number * DAY
    return replace(made(sequence or number, at), id=f"{at:%Y%m%dT%H%M%S}.000Z")


def asked(live: Droplet, wanted: str = "latest", snapshot: str | None = None) -> Manifest:
    return download.chosen(stack(live), wanted, snapshot)
