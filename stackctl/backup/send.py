"""The step `upload` sends backups to the off-site storage."""

from dataclasses import replace

from stackctl.backup import backup_number, manifest
from stackctl.backup.manifest import Offsite
from stackctl.backup.offsite import access, download, upload
from stackctl.backup.run import BackupRun
from stackctl.core.errors import FailedError


def send(run: BackupRun) -> str:
    """Send this backup, and all earlier backups that the storage lacks, such as after an outage or a change of storage.

    If a backup is in the storage, but the comparison after the upload never ended, the backup is sent again.
    """
    stack = run.stack
    if not access.configured(stack):
        return "no backup was sent, because offsite_repository is not set"
    if stack.config.isolated:
        return "no backup was sent, because this droplet is isolated"
    there = upload.sent(stack)
    _renumber(run, there)
    kept = [one for one in manifest.every(stack.paths.backups) if one.verified or one.unproven]
    unsent = [one for one in kept if one.id not in there or not one.offsite]
    for one in reversed(unsent):
        directory = stack.paths.backup(one.id)
        snapshot = upload.upload(stack, one, directory)
        sent = replace(one, offsite=Offsite(stack.machine.now().isoformat(timespec="seconds"), snapshot))
        manifest.save(directory, sent)
        stack.log.emit("upload", "progress", f"sent {one.id} as snapshot {snapshot}")
    return f"backups sent: {len(unsent)}"


def _renumber(run: BackupRun, there: set[str]) -> None:
    """If the storage has backups that this droplet has never seen, give the unsent backups higher numbers.

    The last number is kept on the droplet's disk, which may be set back to a provider's snapshot. Numbers would then be
    used twice, and the backups made after that provider's snapshot would wrongly count as the newest.
    """
    ours = [*run.made, run.manifest]
    shared = max((one.id for one in ours if one.id in there), default="")
    strangers = {one for one in there if one > shared} - {one.id for one in ours}
    try:
        highest = download.highest_since(run.stack, shared, strangers)
    except FailedError as error:  # continue, because backups in the storage are ordered by time
        run.stack.log.emit("upload", "progress", f"cannot read the backup numbers in the storage: {error}")
        return
    if not highest:
        return
    backup_number.seen(run.stack.paths, highest)
    late = [one for one in ours if one.id > shared and one.reason != "release"]
    if not late or late[0].sequence > highest:
        return
    again = {one.id: replace(one, sequence=number) for number, one in enumerate(late, start=highest + 1)}
    for one in again.values():
        manifest.save(run.stack.paths.backup(one.id), one)
    run.made = [again.get(one.id, one) for one in run.made]
    run.manifest = again.get(run.manifest.id, run.manifest)
    said = f"the storage has backup numbers up to {highest}, so unsent backups get higher numbers"
    run.stack.log.emit("upload", "progress", said)
