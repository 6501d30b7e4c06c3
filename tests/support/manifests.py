"""Manifests of made-up backups."""

from datetime import UTC, datetime
from typing import Any

from stackctl.backup.manifest import DUMP, GLOBALS, RDB, STATE, File, Manifest, Postgres, Verified

SMALL = File(1000, "a" * 64)
NOON = datetime(2025, 11, 23, 12, tzinfo=UTC)


def made(sequence: int, at: datetime = NOON, *, verified: bool = True, **more: Any) -> Manifest:
    """Return a manifest with fixed rows and bytes. The manifest's ID depends on its number, not on its time.

    `files` may omit the files that every backup has.
    """
    facts: dict[str, Any] = {
        "app": "bot",
        "reason": "nightly",
        "release": None,
        "schema": None,
        "postgres": Postgres("17.11", "app", 7_000_000),
        "redis": None,
        "tables": {"public.offers": 12},
        "verified": Verified(at.isoformat(), 3.5, 12) if verified else None,
        "offsite": None,
    }
    least = {
        DUMP: File(1000, "0" * 64),
        **dict.fromkeys([GLOBALS, STATE, *([RDB] if more.get("redis") else [])], SMALL),
    }
    facts["files"] = {**least, **more.pop("files", {})}
    name = f"20251123T{sequence // 10000:02}{sequence // 100 % 100:02}{sequence % 100:02}.000Z"
    return Manifest(id=name, at=at.isoformat(), sequence=sequence, **(facts | more))
