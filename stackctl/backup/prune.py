"""The step `prune` deletes old backups, unless the new dump is less than half as large as an earlier dump."""

from collections.abc import Sequence
from pathlib import Path

from stackctl.backup import manifest, partial, retention
from stackctl.backup.manifest import Manifest
from stackctl.backup.run import BackupRun
from stackctl.core.errors import FailedError

KEPT_DAYS = 7
KEPT_OF_RELEASES = 3


def prune(run: BackupRun) -> str:
    """Delete old backups. Keep the backups that `retention` chooses, and the backups of the last releases.

    Also keep each unverified pre-restore backup that is newer than the oldest chosen backup.
    """
    paths = run.stack.paths
    _check_size(run)
    prune_releases(paths.backups)
    others = [one for one in manifest.every(paths.backups) if one.reason != "release"]
    kept = retention.choose(others, daily=KEPT_DAYS)
    # Keep unverified pre-restore backups: a restore has replaced their data, so no newer backup contains that data.
    oldest = min(one.sequence for one in others if one.id in kept)
    kept |= {one.id for one in others if one.unproven and one.reason == "safety" and one.sequence > oldest}
    for one in others:
        if one.id not in kept:
            partial.discard(paths.backup(one.id))
    return f"kept {', '.join(one.id for one in others if one.id in kept)}"


def prune_releases(backups: Path) -> None:
    """Delete old backups that were made by releases.

    Keep the last few of these backups, and all of these backups that are newer than every verified backup.
    """
    made = manifest.every(backups)
    newest_verified = max((one.sequence for one in made if one.verified), default=0)
    for one in [one for one in made if one.reason == "release"][:-KEPT_OF_RELEASES]:
        if one.sequence < newest_verified:
            partial.discard(backups / one.id)


def _check_size(run: BackupRun) -> None:
    """Raise FailedError if the new dump is less than half as large as the largest dump since the last manual backup.

    The loss is reported each night until the operator makes a manual backup.
    """
    former = [*_since_manual(run.made), *_since_manual(run.there)[-1:]]
    if not former:
        return
    largest = max(former, key=_dumped)
    was, now = _dumped(largest), _dumped(run.manifest)
    if 2 * now < was:
        manual = run.reason == "asked"
        meant = (
            "later backups are compared with this one" if manual else "run sudo stackctl backup to acknowledge the loss"
        )
        raise FailedError(
            f"the new dump has lost more than half of its size: {now / 1e6:.1f} MB, but {was / 1e6:.1f} MB in "
            f"{largest.id}. Nothing was pruned",
            next_step="find out which data is missing, and keep the backups that have this data; "
            f"if the loss was intended, {meant}",
        )


def _since_manual(made: Sequence[Manifest]) -> list[Manifest]:
    """Return the last manual backup and all later backups. If there is no manual backup, return all backups.

    Only verified backups count.
    """
    verified = [one for one in made if one.verified and one.reason != "safety"]
    manual = [number for number, one in enumerate(verified) if one.reason == "asked"]
    return verified[max(manual, default=0) :]


def _dumped(one: Manifest) -> int:
    return one.files[manifest.DUMP].bytes
