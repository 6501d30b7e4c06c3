"""Helpers for tests of a restore, which make and damage backups and data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stackctl.app import state, unfinished_restore
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.restore import restore
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.fakes.kills import killed

THEN, NOW = {"public.offers": 12, "public.users": 3}, {"public.offers": 7, "public.users": 4}


def backups(droplet: Droplet, reason: str = "asked") -> list[Manifest]:
    return [one for one in manifest.every(droplet.paths.backups) if one.reason == reason]


def newest(droplet: Droplet) -> str:
    return backups(droplet)[-1].id


def restored(droplet: Droplet, *more: str) -> tuple[int, str]:
    wanted = newest(droplet)
    return stackctl(droplet, "restore", wanted, "--yes", wanted, *more)


def running(droplet: Droplet) -> list[str]:
    return sorted(c["service"] for c in droplet.docker.containers if c["state"] == "running")


ALL = ["postgres", "redis", "web", "worker"]


def as_it_was(droplet: Droplet) -> dict[str, Any]:
    """Return everything that must be unchanged after a restore is undone."""
    return {
        "tables": droplet.postgres.tables,
        "beside": droplet.postgres.beside,
        "keys": droplet.redis.info["keys"],
        "schema": droplet.postgres.schema,
        "running": running(droplet),
        "maintenance": droplet.paths.maintenance.exists(),
        "under way": unfinished_restore.load(droplet.paths),
        "state": state.load(droplet.paths),
    }


def assert_restored(droplet: Droplet) -> None:
    assert (droplet.postgres.tables, droplet.redis.info["keys"]) == (THEN, "5")
    assert (running(droplet), droplet.postgres.beside, unfinished_restore.load(droplet.paths)) == (ALL, {}, None)
    assert not droplet.paths.maintenance.exists()
    assert [path.name for path in (droplet.paths.var / "data/redis").iterdir()] == ["dump.rdb"]
    assert stackctl(droplet, "status")[0] == 0


def truncated(droplet: Droplet) -> None:
    path = droplet.paths.backup(newest(droplet)) / "postgres.dump"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(droplet: Droplet) -> None:
    path = droplet.paths.backup(newest(droplet)) / "redis.rdb"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def told(droplet: Droplet, **changes: Any) -> None:
    """Change the manifest of the newest backup."""
    directory = droplet.paths.backup(newest(droplet))
    manifest.save(directory, replace(manifest.load(directory), **changes))


def interrupted(droplet: Droplet, at: str = "swap", *beside: str) -> Droplet:
    """Kill a restore before a step, by default the swap.

    After the kill, the bot is closed and the live data is unchanged.
    """

    def killed_here(_work: object) -> str:
        droplet.killed_at = droplet.moments + 1
        droplet.now()
        return ""

    with pytest.MonkeyPatch.context() as patched:
        for table in ("REPLACED", "BESIDE"):
            steps = getattr(restore, table)
            steps = tuple(step._replace(act=killed_here) if step.name == at else step for step in steps)
            patched.setattr(restore, table, steps)
        left = killed(droplet, 0, "restore", newest(droplet), *(beside or ("--yes", newest(droplet))))
    assert left
    left.killed_at = None
    return left
