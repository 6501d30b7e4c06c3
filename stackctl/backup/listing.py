"""The verb `list-backups` lists the backups and their problems."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.backup.stored import Stored
from stackctl.core import history, lock
from stackctl.core.errors import NEXT, LockedError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.printable import printable

OVERDUE = timedelta(hours=26)
"""A nightly backup is overdue after this time."""
COLUMNS = ("id", "reason", "MB", "rows", "verified", "off-site", "release")


def documents(paths: Paths) -> list[dict[str, Any]]:
    """Return the manifests for JSON output, oldest first."""
    return [asdict(one) for one in manifest.every(paths.backups)]


def text(paths: Paths) -> str:
    """Return a table of the backups for people, newest first, followed by the problems of single backups."""
    made = manifest.every(paths.backups)
    lines = table(made) or ["there is no backup yet. Next: sudo stackctl backup"]
    return "\n".join([*lines, *map(printable, [*_unproven(made), *manifest.unreadable(paths.backups)])])


def table(made: Sequence[Manifest]) -> list[str]:
    """Return a header and a line for each backup, newest first, or an empty list if there is no backup."""
    return _table(COLUMNS, [_row(one) for one in reversed(made)])


def stored_table(there: Sequence[Stored]) -> list[str]:
    """Return a table of the off-site snapshots, with the storage's dates, and a line for each doubt."""
    rows = [(one.manifest.id, f"{one.at:%Y-%m-%d %H:%M}", *_row(one.manifest)[1:]) for one in reversed(there)]
    doubts = [f"{one.name} is in doubt: {doubt}" for one in reversed(there) for doubt in one.doubts]
    return _table(("id", "stored (UTC)", *COLUMNS[1:]), rows) + doubts


def _table(head: tuple[str, ...], told: Iterable[tuple[str, ...]]) -> list[str]:
    rows = [tuple(map(printable, row)) for row in told]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)] if rows else []


def problems(paths: Paths, machine: Machine, *, nightly: bool) -> list[str]:
    """Return a line for each problem. `nightly` says whether a backup is due each night."""
    made = manifest.every(paths.backups)
    lines = manifest.unreadable(paths.backups)
    if fault := _last_fault(paths):
        lines.append(fault)
    newest = next((one for one in reversed(made) if one.verified), None)
    lines += _unproven([one for one in made if not newest or one.sequence > newest.sequence])
    since = newest.time if newest else _first_planned(paths)
    # If the newest backup has a date in the future, a backup is also overdue, because the clock may have been ahead.
    if nightly and since and abs(machine.now() - since) > OVERDUE:
        what = f"the last verified backup is from {since:%Y-%m-%d %H:%M} UTC" if newest else "there is no backup yet"
        lines.append(f"{what}. Next: sudo journalctl -u {paths.units.backup_service}, then sudo stackctl backup")
    return lines


def _unproven(made: Sequence[Manifest]) -> list[str]:
    return [f"{one.id} is unverified: {one.unproven}" for one in made if one.unproven]


def _row(one: Manifest) -> tuple[str, ...]:
    return (
        one.id,
        one.reason,
        f"{one.bytes / 1e6:.1f}",
        str(one.rows),
        f"in {one.verified.seconds:.1f} s" if one.verified else "unverified" if one.unproven else "no",
        one.offsite.snapshot[:8] if one.offsite else "no",
        one.release["tag"] if one.release else "none",
    )


def _last_fault(paths: Paths) -> str | None:
    """Return a line if the last backup failed. A backup that was refused because of a lock does not count."""
    runs: Iterable[dict[str, Any]] = history.runs(paths, "backup")
    last = next((run for run in reversed(list(runs)) if run["code"] != LockedError.code), None)
    if not last or last["state"] == "done":
        return None
    if last["state"] == "failed":
        cause, _, asked = last["message"].rpartition(NEXT) if NEXT in last["message"] else (last["message"], "", "")
        return f"the last backup failed: {cause}{NEXT}{_then_again(asked)}"
    if lock.holder_of(paths.backup_lock):
        return None
    return f"the last backup, of {last['at'][:16]}, was interrupted{NEXT}{_then_again()}"


def _then_again(first: str = "") -> str:
    again = "sudo stackctl backup"
    return first if again in first else f"{first or 'fix the cause'}, then {again}"


def _first_planned(paths: Paths) -> datetime | None:
    """Return when the timer last started a backup, or when the timer was started if there was no backup since.

    None if there is no timer.
    """
    try:
        return datetime.fromtimestamp(paths.backup_stamp.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
