"""Helpers for tests of backups, which read the backups of a droplet in memory and add backups to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.core import config, events, lock
from stackctl.core.program import Result
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.manifests import made


def every(droplet: Droplet) -> list[Manifest]:
    return manifest.every(droplet.paths.backups)


def proven(droplet: Droplet) -> list[Manifest]:
    return [one for one in every(droplet) if one.verified]


def leftovers(droplet: Droplet) -> list[str]:
    """Return the partial backups and throwaway containers, which every run must remove."""
    return [*(path.name for path in droplet.paths.backups.glob("*.partial")), *droplet.docker.throwaway]


def problems(droplet: Droplet) -> list[str]:
    found: list[str] = json.loads(stackctl(droplet, "status", "--json")[1])["problems"]
    return found


def keep(droplet: Droplet, one: Manifest) -> None:
    """Store a backup on the droplet as if the droplet had made the backup."""
    directory = droplet.paths.backup(one.id)
    directory.mkdir(parents=True)
    manifest.save(directory, one)


@contextmanager
def looking(monkeypatch: pytest.MonkeyPatch, droplet: Droplet) -> Iterator[list[list[bool]]]:
    """Record whether the site's lock and the backup's lock are held at each dump, verification and check of data."""
    seen: list[list[bool]] = []

    def look() -> None:
        seen.append([bool(lock.holder_of(path)) for path in (droplet.paths.lock, droplet.paths.backup_lock)])

    run = type(droplet).run

    def looked_at(self: Droplet, argv: list[str], *rest: Any, **more: Any) -> Result:
        if {"pg_dump", "pg_restore", "pg_amcheck"} & set(argv) and not {"--list", "--schema-only"} & set(argv):
            look()
        return run(self, argv, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(type(droplet), "run", looked_at)
        yield seen


ENDED = Result(1, stderr="it ended")


def large(number: int, **more: Any) -> Manifest:
    return made(number, files={manifest.DUMP: manifest.File(10_000_000, "0" * 64)}, **more)


def small(number: int, **more: Any) -> Manifest:
    """Return the manifest of a backup that is as small as the fake's dumps."""
    return made(number, files={manifest.DUMP: manifest.File(40, "0" * 64)}, **more)


SHRUNK = "the new dump has lost more than half of its size: 0.0 MB, but 10.0 MB in {}. Nothing was pruned"


class Sent(list[str]):
    """The IDs of the backups that were sent off-site."""

    most = 3
    """The storage accepts at most this many backups."""


def stack_of(droplet: Droplet) -> Stack:
    log = events.RunLog(None, "restore", droplet, StringIO(), (), "20251123T130000.000Z")
    return Stack(droplet.paths, config.load(droplet.paths), droplet, log)
