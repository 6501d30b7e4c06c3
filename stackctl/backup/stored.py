"""Snapshots in the off-site storage, and what makes one of them doubtful.

The droplet's key can add snapshots, so an intruder can, too. Tags, manifests and restic's own times (`restic backup
--time`) are then the intruder's word. The date on which the storage took a snapshot is not: doubts are measured by it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.core.errors import FailedError, RefusedError

LATEST = "latest"
LATE = timedelta(days=1)
"""A backup is sent within this time of its dump."""
SKEW = timedelta(minutes=15)
"""Clocks may differ by this much: S3 answers RequestTimeTooSkewed beyond it."""
NUMBERS_A_DAY = 100
"""Backups and releases share one numbering, which grows by less than this each day."""
PATH = re.compile(r"(/[\w.-]+)+")
"""A path of an intruder's must not be an option of restic's, such as --password-command."""
_ID = re.compile(r"[0-9a-f]{1,64}")
_ID_OF_A_PERSON = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Snapshot:
    """A backup as restic lists it."""

    id: str
    time: str
    """The sender's word."""
    backup: str
    """The backup's ID, from the tag."""
    path: str
    """The backup's directory on the droplet."""


@dataclass(frozen=True)
class Stored:
    """A snapshot with its manifest."""

    snapshot: Snapshot
    manifest: Manifest
    at: datetime
    """The storage's own date for it."""
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.manifest.id} (snapshot {self.snapshot.id[:8]}, stored {self.at:%Y-%m-%d %H:%M} UTC)"

    def copies(self, other: Manifest) -> bool:
        """Whether both are one backup. Only the note on where it lies may differ."""
        return replace(self.manifest, offsite=None) == replace(other, offsite=None)


def snapshots(listed: str) -> list[Snapshot]:
    """The backups among what `restic snapshots --json` lists, in its order."""
    found = []
    for one in json.loads(listed) or []:
        tags = [tag for tag in one.get("tags") or [] if manifest.ID.fullmatch(tag)]
        paths = [path for path in one.get("paths") or [] if PATH.fullmatch(path)]
        if len(tags) == 1 and len(paths) == 1 and _ID.fullmatch(one["id"]):
            found.append(Snapshot(one["id"], one["time"], tags[0], paths[0]))
    return found


def read(text: str, snapshot: Snapshot) -> Manifest:
    """The manifest of a snapshot. Raises FailedError."""
    told = manifest.parse(text, f"{manifest.NAME} of snapshot {snapshot.id}")
    if told.id != snapshot.backup:
        raise FailedError(f"snapshot {snapshot.id} is tagged {snapshot.backup}, and has {told.id} in it")
    return told


def judged(found: Iterable[Stored]) -> list[Stored]:
    """All of them with their doubts, oldest first.

    The order is by time. Numbers come from a file on the droplet's disk, which goes back with a provider's snapshot.
    """
    in_order = sorted(found, key=lambda one: (one.manifest.time, one.manifest.sequence, one.snapshot.id))
    jumped = _jumped(in_order)
    return [
        replace(
            one,
            doubts=(
                *_doubts_of_dates(one),
                *([f"its number, {one.manifest.sequence}, jumps"] if one.snapshot.id in jumped else []),
                *_doubts_of_twins(one, in_order),
            ),
        )
        for one in in_order
    ]


def choose(found: Sequence[Stored], wanted: str, snapshot: str | None = None) -> Stored:
    """The one that an operator asks for, among those that are judged. Raises RefusedError."""
    if snapshot:
        return _named(found, wanted, snapshot)
    if wanted == LATEST:
        return _latest(found)
    same_id = [one for one in found if one.manifest.id == wanted]
    if not same_id:
        raise RefusedError(f"the storage has no backup {wanted}: sudo stackctl offsite lists them")
    if not all(one.copies(same_id[0].manifest) for one in same_id):
        raise RefusedError(
            f"{wanted} is ambiguous: {', '.join(one.name for one in same_id)} differ, so one of them may be forged. "
            f"Nothing was changed. Next: sudo stackctl offsite, then sudo stackctl restore {wanted} --from-offsite "
            "--snapshot SNAPSHOT"
        )
    return min(same_id, key=lambda one: one.at)


def _named(found: Sequence[Stored], wanted: str, snapshot: str) -> Stored:
    if wanted == LATEST or not _ID_OF_A_PERSON.fullmatch(snapshot):
        raise RefusedError("--snapshot needs a backup's ID, and at least 8 characters of the snapshot's own")
    named = [one for one in found if one.manifest.id == wanted and one.snapshot.id.startswith(snapshot)]
    if len(named) != 1:
        raise RefusedError(
            f"{len(named)} snapshots of {wanted} begin with {snapshot}: sudo stackctl offsite lists them"
        )
    return named[0]


def _latest(found: Sequence[Stored]) -> Stored:
    """The newest one that was verified. What a restore saved is left out: it has what was to be got rid of."""
    usable = [one for one in found if one.manifest.verified and one.manifest.reason != "safety"]
    newest = next((one for one in reversed(usable) if not one.doubts), None)
    newer = [
        one
        for one in usable
        if one.doubts and (not newest or (one.manifest.time > newest.manifest.time and one.at > newest.at))
    ]
    if newer:
        clear = f"the newest without a doubt is {newest.manifest.id}" if newest else "none is without a doubt"
        raise RefusedError(
            f"which backup is the latest is in doubt: {'; '.join(f'{one.name}: {one.doubts[0]}' for one in newer)}; "
            f"{clear}. Nothing was changed. Next: sudo stackctl offsite, then restore one by its ID"
        )
    if not newest:
        raise RefusedError("there is no verified backup: stackctl backups, and restore --from-offsite")
    return newest


def _doubts_of_dates(one: Stored) -> list[str]:
    told = f"its manifest says {one.manifest.time:%Y-%m-%d %H:%M}, "
    if one.manifest.time > one.at + SKEW:
        return [f"{told}later than the storage took it"]
    if one.manifest.time < one.at - LATE:
        return [f"{told}{(one.at - one.manifest.time).days} days before the storage took it"]
    return []


def _doubts_of_twins(one: Stored, found: Sequence[Stored]) -> list[str]:
    return [
        f"another one has its ID, snapshot {other.snapshot.id[:8]}"
        for other in found
        if other.manifest.id == one.manifest.id and not other.copies(one.manifest)
    ]


def _jumped(found: Sequence[Stored]) -> set[str]:
    """The IDs of the snapshots whose number is higher than the days since the highest one before can explain."""
    jumped = set()
    highest: Stored | None = None
    for one in sorted(found, key=lambda one: one.at):
        if highest:
            days = 1 + (one.at - highest.at) / timedelta(days=1)
            if one.manifest.sequence > highest.manifest.sequence + NUMBERS_A_DAY * days:
                jumped.add(one.snapshot.id)
                continue
        if not highest or one.manifest.sequence > highest.manifest.sequence:
            highest = one
    return jumped
