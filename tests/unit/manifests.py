"""Manifests of backups that never were."""

from datetime import UTC, datetime
from typing import Any

from stackctl.manifest import DUMP, File, Manifest, Postgres, Verified

NOON = datetime(2025, 11, 23, 12, tzinfo=UTC)


def made(sequence: int, at: datetime = NOON, *, verified: bool = True, **more: Any) -> Manifest:
    """One of so many rows and bytes; its id follows from its number, as a clock's that stood still wouldn't."""
    facts: dict[str, Any] = {
        "app": "bot",
        "reason": "nightly",
        "release": None,
        "schema": None,
        "postgres": Postgres("17.11", "app", 7_000_000),
        "redis": None,
        "tables": {"public.offers": 12},
        "files": {DUMP: File(1000, "0" * 64)},
        "verified": Verified(at.isoformat(), 3.5, 12) if verified else None,
    }
    name = f"20251123T{sequence // 10000:02}{sequence // 100 % 100:02}{sequence % 100:02}.000Z"
    return Manifest(id=name, at=at.isoformat(), sequence=sequence, **(facts | more))
