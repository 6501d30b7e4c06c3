"""Lists the snapshots in the off-site storage, and the doubts about each snapshot.

The droplet's key can add snapshots, so an intruder on the droplet can also add snapshots. The intruder then controls
tags, manifests and restic's times (`restic backup --time`), but not the date on which the storage received a snapshot.
The doubts rely on the storage's date.
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
"""A backup is normally sent within this time after its dump."""
SKEW = timedelta(minutes=15)
"""Clocks may differ by this much. If they differ by more, S3 answers RequestTimeTooSkewed."""
NUMBERS_A_DAY = 100
"""Backups and releases share one numbering, which grows by less than this each day."""
PATH = re.compile(r"(/[\w.-]+)+")
"""A path of this form cannot be an option of restic, such as --password-command. An intruder may choose the path."""
_ID = re.compile(r"[0-9a-f]{1,64}")
_ID_OF_A_PERSON = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Snapshot:
    """A backup in the output of `restic snapshots`."""

    id: str
    time: str
    """The time that the sender states."""
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
    """The date on which the storage took the snapshot."""
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.manifest.id} (snapshot {self.snapshot.id[:8]}, stored {self.at:%Y-%m-%d %H:%M} UTC)"

    def copies(self, other: Manifest) -> bool:
        """Return whether `other` is a manifest of the same backup. Only the field `offsite` may differ."""
        return replace(self.manifest, offsite=None) == replace(other, offsite=None)


def snapshots(listed: str) -> list[Snapshot]:
    """Return the backups in the output of `restic snapshots --json`, in the order of the output."""
    found = []
    for one in json.loads(listed) or []:
        tags = [tag for tag in one.get("tags") or [] if manifest.ID.fullmatch(tag)]
        paths = [path for path in one.get("paths") or [] if PATH.fullmatch(path)]
        if len(tags) == 1 and len(paths) == 1 and _ID.fullmatch(one["id"]):
            found.append(Snapshot(one["id"], one["time"], tags[0], paths[0]))
    return found


def read(text: str, snapshot: Snapshot) -> Manifest:
    """Parse the manifest of a snapshot. Raise FailedError if the manifest is invalid, or belongs to another backup."""
    told = manifest.parse(text, f"{manifest.NAME} of snapshot {snapshot.id}")
    if told.id != snapshot.backup:
        raise FailedError(f"snapshot {snapshot.id} is tagged {snapshot.backup}, but contains {told.id}")
    return told


def judged(found: Iterable[Stored]) -> list[Stored]:
    """Return the snapshots with their doubts, oldest first.

    Snapshots are ordered by time and not by number. The last number is kept on the droplet's disk, and that disk may be
    set back to a provider's snapshot.
    """
    in_order = sorted(found, key=lambda one: (one.manifest.time, one.manifest.sequence, one.snapshot.id))
    jumped = _jumped(in_order)
    return [
        replace(
            one,
            doubts=(
                *_doubts_of_dates(one),
                *(
                    [f"its number {one.manifest.sequence} is far higher than all earlier numbers"]
                    if one.snapshot.id in jumped
                    else []
                ),
                *_doubts_of_twins(one, in_order),
            ),
        )
        for one in in_order
    ]


def choose(found: Sequence[Stored], wanted: str, snapshot: str | None = None) -> Stored:
    """Return the snapshot that the operator asked for. Raise RefusedError unless exactly one backup matches."""
    if snapshot:
        return _named(found, wanted, snapshot)
    if wanted == LATEST:
        return _latest(found)
    same_id = [one for one in found if one.manifest.id == wanted]
    if not same_id:
        raise RefusedError(
            f"the storage has no backup {wanted}",
            next_step="sudo stackctl check-offsite, which lists all backups there",
        )
    if not all(one.copies(same_id[0].manifest) for one in same_id):
        raise RefusedError(
            f"{wanted} is ambiguous, because these snapshots differ: {', '.join(one.name for one in same_id)}. "
            "Some may be forged. Nothing was changed",
            next_step=f"sudo stackctl check-offsite, then sudo stackctl restore {wanted} "
            "--from-offsite --snapshot SNAPSHOT",
        )
    return min(same_id, key=lambda one: one.at)


def _named(found: Sequence[Stored], wanted: str, snapshot: str) -> Stored:
    if wanted == LATEST or not _ID_OF_A_PERSON.fullmatch(snapshot):
        raise RefusedError("--snapshot needs a backup ID, and at least 8 characters of the snapshot ID")
    named = [one for one in found if one.manifest.id == wanted and one.snapshot.id.startswith(snapshot)]
    if len(named) != 1:
        raise RefusedError(
            f"{len(named)} snapshots of {wanted} have an ID that begins with {snapshot}",
            next_step="sudo stackctl check-offsite, which lists all snapshots",
        )
    return named[0]


def _latest(found: Sequence[Stored]) -> Stored:
    """Return the newest verified backup, but no pre-restore backup, because the data in that backup was replaced."""
    usable = [one for one in found if one.manifest.verified and one.manifest.reason != "safety"]
    newest = next((one for one in reversed(usable) if not one.doubts), None)
    newer = [
        one
        for one in usable
        if one.doubts and (not newest or (one.manifest.time > newest.manifest.time and one.at > newest.at))
    ]
    if newer:
        clear = (
            f"The newest backup that is not in doubt is {newest.manifest.id}" if newest else "All backups are in doubt"
        )
        raise RefusedError(
            f"it is in doubt which backup is the latest: {'; '.join(f'{one.name}: {one.doubts[0]}' for one in newer)}. "
            f"{clear}. Nothing was changed",
            next_step="sudo stackctl check-offsite, then restore a backup by its ID",
        )
    if not newest:
        raise RefusedError(
            "the storage has no verified backup", next_step="sudo stackctl check-offsite, which lists all backups there"
        )
    return newest


def _doubts_of_dates(one: Stored) -> list[str]:
    told = f"its manifest says {one.manifest.time:%Y-%m-%d %H:%M}, "
    if one.manifest.time > one.at + SKEW:
        return [f"{told}but the storage received the backup earlier"]
    if one.manifest.time < one.at - LATE:
        return [f"{told}but the storage received the backup {(one.at - one.manifest.time).days} days later"]
    return []


def _doubts_of_twins(one: Stored, found: Sequence[Stored]) -> list[str]:
    return [
        f"snapshot {other.snapshot.id[:8]} has the same backup ID, but different content"
        for other in found
        if other.manifest.id == one.manifest.id and not other.copies(one.manifest)
    ]


def _jumped(found: Sequence[Stored]) -> set[str]:
    """Return the IDs of all snapshots with a number that is too high for the days since the highest earlier number."""
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
