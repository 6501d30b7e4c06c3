"""Sends backups to the off-site storage."""

import json
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.manifest import Manifest
from stackctl.backup.offsite.repository import AGAIN, Repository, timeout_for
from stackctl.backup.stored import Snapshot
from stackctl.core import openat
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.program import Result

FETCHED = "fetched"
"""The directory beside the backups into which a sent backup is fetched for comparison."""


def upload(stack: Stack, told: Manifest, directory: Path) -> str:
    """Send a backup, fetch the snapshot back, and compare the files. Return the snapshot's ID.

    Raises FailedError with the cause and the next step.
    """
    repository = Repository(stack)
    if repository.config.read_only:
        raise RefusedError("no backup was sent, because this droplet is isolated", next_step="make promote")
    # Check the backup before the upload. If its files were damaged on the droplet, the comparison after the upload
    # would blame the storage every night.
    if faults := manifest.differing(directory, told):
        raise FailedError(
            f"{told.id} was changed after it was written: {', '.join(faults)}",
            next_step=f"check the disk (sudo journalctl -k), then remove {directory}",
        )
    repository.find()
    repository.probe()
    # A killed upload leaves a lock that would block `make prune` for half an hour.
    repository.restic("unlock")
    options = ("--json", "--quiet", "--no-scan", "--host", told.app, "--tag", told.id)
    sent = repository.restic("backup", *options, directory, timeout=timeout_for(told))
    snapshot = Snapshot(_summary(sent), "", told.id, str(directory))
    # No other upload is running, so only a killed upload can have left FETCHED.
    with openat.directory(stack.paths.backups) as backups:
        backups.remove(FETCHED)
        try:
            proof = stack.paths.backups / FETCHED / told.id
            proof.mkdir(mode=0o700, parents=True)
            repository.restore(snapshot, told, proof)
        finally:
            backups.remove(FETCHED)
    return snapshot.id


def sent(stack: Stack) -> set[str]:
    """Return the IDs of the backups in the storage. Raise FailedError if the storage cannot be read."""
    repository = Repository(stack)
    repository.find()
    return {snapshot.backup for snapshot in repository.snapshots()}


def _summary(sent: Result) -> str:
    """Return the ID of the snapshot from the last line of `restic backup --json`."""
    try:
        return str(json.loads(sent.stdout.splitlines()[-1])["snapshot_id"])
    except (ValueError, LookupError, TypeError):
        raise FailedError(f"restic returned no snapshot ID ({sent.reason})", next_step=AGAIN) from None
