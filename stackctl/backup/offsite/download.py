"""Finds backups in the off-site storage, and fetches them."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import backup_number, manifest, stored
from stackctl.backup.manifest import Manifest, Offsite
from stackctl.backup.offsite.repository import Repository
from stackctl.backup.stored import LATEST, Stored
from stackctl.core import openat
from stackctl.core.errors import FailedError, RefusedError

READING = "reading the off-site backups takes about one second each"
"""For each backup, restic derives the repository's key from the password again, which is slow on purpose."""


def everything(stack: Stack, *backup_ids: str) -> list[Stored]:
    """Return the snapshots of the given backups with their doubts, oldest first. Without an ID, return all snapshots.

    Raises FailedError if a snapshot cannot be read. A snapshot without a valid manifest is skipped, so that an intruder
    who adds such a snapshot cannot hide the backups.
    """
    repository = Repository(stack)
    repository.find()
    found = []
    for snapshot in repository.snapshots(*(word for one in backup_ids for word in ("--tag", one))):
        text = repository.text(snapshot)
        try:
            told = stored.read(text, snapshot)
        except FailedError:
            continue
        at = repository.stored_at(snapshot)
        note = Offsite(at.isoformat(timespec="seconds"), snapshot.id)
        found.append(Stored(snapshot, replace(told, offsite=note), at))
    return stored.judged(found)


def available(stack: Stack) -> list[Manifest]:
    """Return the manifests of the backups that are not in doubt, oldest first."""
    found = {one.manifest.id: one.manifest for one in everything(stack) if not one.doubts}
    with suppress(OSError):  # ignore a full disk, because the next run reads the storage again
        backup_number.seen(stack.paths, _highest(found.values()))
    return list(found.values())


def highest_since(stack: Stack, backup_id: str, later: Iterable[str]) -> int:
    """Return the highest number of the backups in `later`, or 0 if `later` is empty.

    `backup_id` is the newest backup that both this droplet and the storage have. A backup in doubt is ignored, for
    example because its number is far higher than the number of `backup_id`.
    """
    later = [*later]
    if not later:
        return 0
    found = everything(stack, *([backup_id] if backup_id else []), *later)
    return _highest(one.manifest for one in found if one.manifest.id in later and not one.doubts)


def chosen(stack: Stack, wanted: str, snapshot: str | None = None) -> Manifest:
    """Return the manifest of the backup that the operator asked for, and emit the doubts about that backup.

    If the droplet has an intact backup with this ID, the backup on the droplet is used, and never replaced. Raises
    RefusedError if there is no such backup, or if it is in doubt which of several backups is meant.
    """
    if wanted == LATEST:
        stack.log.emit("preflight", "progress", READING)
    elif not manifest.ID.fullmatch(wanted):
        raise RefusedError(
            f"there is no off-site backup {wanted!r}",
            next_step="sudo stackctl check-offsite, which lists all off-site backups",
        )
    elif not snapshot and (here := intact(stack.paths.backup(wanted))):
        return here
    found = everything(stack, *([] if wanted == LATEST else [wanted]))
    one = stored.choose(found, wanted, snapshot)
    place = stack.paths.backup(one.manifest.id)
    if (here := intact(place)) and not one.copies(here):
        if snapshot:
            raise RefusedError(
                f"{place} is intact and differs from snapshot {snapshot}. Nothing was changed",
                next_step="restore that backup without --from-offsite, or move that directory away first",
            )
        stack.log.emit(
            "preflight", "progress", f"{one.name} is not used, because the intact backup on this droplet differs"
        )
    for doubt in one.doubts:
        stack.log.emit("preflight", "progress", f"{one.name} is in doubt: {doubt}")
    if wanted == LATEST and (doubtful := sum(1 for other in found if other.doubts)):
        stack.log.emit(
            "preflight", "progress", f"{doubtful} other snapshots are in doubt. Next: sudo stackctl check-offsite"
        )
    return here or one.manifest


def intact(directory: Path) -> Manifest | None:
    """Return the manifest of the backup in a directory, or None if a file of the backup is missing or damaged."""
    with suppress(FailedError):
        here = manifest.load(directory)
        if not manifest.differing(directory, here):
            return here
    return None


def fetch(stack: Stack, told: Manifest, directory: Path) -> Manifest:
    """Fetch a backup into an empty directory named after the backup's ID, and check the files against the manifest.

    If the backup was sent more than once, one intact copy suffices. Raises RefusedError if the storage has no copy, and
    FailedError for every other problem.
    """
    repository = Repository(stack)
    copies = [one.snapshot for one in everything(stack, told.id) if one.copies(told)]
    if not copies:
        raise RefusedError(
            f"{repository.config.repository} has no copy of the backup {told.id}",
            next_step="sudo stackctl check-offsite",
        )
    for snapshot in copies[:-1]:
        with suppress(FailedError):
            return repository.restore(snapshot, told, directory)
        with openat.directory(directory.parent, directory.name) as there:
            there.empty()
    return repository.restore(copies[-1], told, directory)


def _highest(found: Iterable[Manifest]) -> int:
    return backup_number.greatest(one.sequence for one in found)
