"""Deletes old off-site backups: `make prune ENV=prod`, or `python -m deploys.offsite.prune inventories/prod.py`.

The program runs on the operator's machine with the operator's key, because the droplet's key should not be able to
delete. The program chooses the backups by the storage's own dates and by the ledger (look.py), because an intruder can
write any date and number into a manifest. The program shows a plan, and reads the newest verified backup from the
storage as a test. Then the program deletes the snapshots by their IDs. A backup that the storage received less than
FLOOR ago is never deleted. The exit code is 0 if the prune is done, 1 after a failure, and 2 if the prune was refused
and nothing was deleted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import environment_of, group_data
from deploys.config.settings import load_settings
from deploys.offsite import look
from deploys.offsite.restic import OPERATOR, Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED
from deploys.terminal.prompt import confirm
from stackctl.backup import manifest, retention
from stackctl.backup.offsite import download
from stackctl.backup.stored import Stored
from stackctl.core.errors import RefusedError, StackError
from stackctl.core.printable import printable

DAILY, WEEKLY, MONTHLY = 7, 4, 6
FLOOR = timedelta(days=60)
"""Minimum age of a backup that is deleted, by the storage's dates. A break-in can be noticed within this time. restic's
manual advises such a minimum if keys can only append ("Security considerations in append-only mode")."""
READ = "5%"
"""Random share of the stored data that each check reads."""
LONG_S = 6 * 3600


@dataclass(frozen=True)
class Plan:
    """The backups to keep and to delete, both oldest first."""

    keep: Sequence[Stored]
    drop: Sequence[Stored]
    unexplained: str = ""
    """The reason why a person has to check the plan: the time since the last prune does not explain all deletions."""

    @property
    def proof(self) -> Sequence[Stored]:
        """The newest verified backup without a doubt, and its copies. The list is empty if there is no such backup."""
        clear = [one for one in self.keep if one.manifest.verified and not one.doubts]
        return [one for one in clear if one.manifest.id == clear[-1].manifest.id]

    @property
    def shrunk(self) -> str:
        """The reason for a person to check the plan if the newest dump is much smaller than a dump to delete, or ""."""
        dump = manifest.DUMP
        largest = max((one.manifest.files[dump].bytes for one in self.drop), default=0)
        if not self.proof or 2 * self.proof[0].manifest.files[dump].bytes >= largest:
            return ""
        newest = self.proof[0].manifest
        return (
            f"The dump of {newest.id}, the newest verified backup, has {newest.files[dump].bytes / 1e6:.1f} MB, but "
            f"the dump of a backup to delete has {largest / 1e6:.1f} MB. Next: find out what was lost, and who sent "
            "these backups."
        )


def plan(found: Sequence[Stored], now: datetime, pruned: datetime | None, floor: timedelta = FLOOR) -> Plan:
    """Use the storage's dates to choose the backups to keep.

    A backup in doubt is kept in addition to the backup of its day, week or month. `pruned` is the time at which a prune
    last finished.
    """
    clear = [one for one in found if not one.doubts]
    first = {one.manifest.id: one.at for one in sorted(clear, key=lambda one: one.at, reverse=True)}
    manifests = {one.manifest.id: one.manifest for one in clear}
    dated = [replace(manifests[name], at=first[name].isoformat(), sequence=rank) for rank, name in enumerate(manifests)]
    ids = retention.choose(dated, DAILY, WEEKLY, MONTHLY)
    stays = [bool(one.doubts) or one.manifest.id in ids or now - one.at < floor for one in found]
    drop = [one for one, stay in zip(found, stays, strict=True) if not stay]
    return Plan(
        keep=[one for one, stay in zip(found, stays, strict=True) if stay],
        drop=drop,
        unexplained=_unexplained(drop, now, pruned, floor),
    )


def _unexplained(drop: Sequence[Stored], now: datetime, pruned: datetime | None, floor: timedelta) -> str:
    """Return a reason to distrust the plan if a prune would delete more backups than expected, or else "".

    The last prune kept every backup younger than the floor, and one older backup for each month. So each backup to
    delete must have been younger than the floor at the last prune. The only exception is one older monthly backup for
    each month that has begun since the last prune.
    """
    if not drop:
        return ""
    if not pruned:
        return "The ledger has no finished prune yet. Next: check the plan."
    months = 12 * (now.year - pruned.year) + now.month - pruned.month
    older = {one.manifest.id for one in drop if one.at <= pruned - floor}
    if len(older) <= months:
        return ""
    return (
        f"{len(older)} of the backups to delete were older than {floor.days} days at the last prune "
        f"({pruned:%Y-%m-%d}), which kept them. The time since then explains why {months} of them are deleted now. "
        "Next: find out why the plan deletes the others."
    )


def main() -> int:
    """Prune the storage of the environment named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploys.offsite.prune")
    parser.add_argument("inventory")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    arguments = parser.parse_args()
    try:
        settings = load_settings(group_data(environment_of(arguments.inventory)))
        return prune(Repository.of(settings), Path(settings.values.backups_ledger), sure=arguments.yes)
    except (PyinfraError, StackError) as error:
        print(printable(f"prune: {error}"), file=sys.stderr)
        return error.code if isinstance(error, StackError) else FAILED


def prune(repository: Repository, ledger: Path, *, sure: bool) -> int:
    """Show the plan, delete the backups and return the exit code. Raises RepositoryError or RefusedError."""
    if not repository.exists(OPERATOR):
        raise RepositoryError(f"{repository.url}: there is no repository yet. Next: make offsite")
    # `restic unlock` removes locks that killed runs left on this machine, and locks that were not renewed for half an
    # hour.
    repository.restic("unlock")
    print(f"{repository.url}: {download.READING}", flush=True)
    seen = look.look(repository, look.load(ledger, repository.url))
    look.save(ledger, look.remembered(seen))
    chosen = plan(seen.found, seen.at, seen.known.pruned)
    needs_a_person = [*seen.alarms, *filter(None, [chosen.unexplained, chosen.shrunk])]
    print("\n".join(map(printable, [*report(chosen), *seen.unread, *needs_a_person])), flush=True)
    if not chosen.drop:
        look.save(ledger, look.without(look.remembered(seen), (), seen.at))
        print("There is nothing to delete.")
        return DONE
    if not chosen.proof:
        raise RefusedError("no off-site backup is verified, so no backup was deleted")
    asked = bool(needs_a_person) or not sure
    if asked:
        confirm("Delete these backups?", "" if needs_a_person else ". Next: confirm in advance with YES=1 (--yes)")
    read_back(repository, chosen.proof)
    dropped = [one.snapshot.id for one in chosen.drop]
    known = look.remembered(seen, accepted=asked)
    look.save(ledger, replace(known, dropping=dropped))
    repository.restic("forget", "--prune", *dropped, timeout=LONG_S)
    look.save(ledger, look.without(known, dropped, seen.at))
    repository.restic("check", f"--read-data-subset={READ}", timeout=LONG_S)
    print(f"Deleted {len(chosen.drop)} backups. The other backups were checked, and {READ} of their data was read.")
    return DONE


def report(chosen: Plan) -> list[str]:
    """Return a line for each backup of the plan, and a line for each doubt."""
    lines = []
    for what, group in (("keep", chosen.keep), ("DELETE", chosen.drop)):
        for one in group:
            verified = "verified" if one.manifest.verified else "not verified"
            lines.append(
                f"  {what:<6}  {one.snapshot.id[:8]}  {one.manifest.id}  {one.manifest.reason:<7}  "
                f"{one.manifest.bytes / 1e6:8.1f} MB  {one.manifest.rows} rows  {verified}  stored {one.at:%Y-%m-%d}"
            )
    doubts = [f"{one.name} stays, and is in doubt: {doubt}" for one in chosen.keep for doubt in one.doubts]
    head = (
        f"{len(chosen.keep)} stay ({DAILY} daily, {WEEKLY} weekly, {MONTHLY} monthly, and all of the last "
        f"{FLOOR.days} days), "
        f"{len(chosen.drop)} would be deleted:"
    )
    return [head, *lines, *doubts]


def read_back(repository: Repository, copies: Sequence[Stored]) -> None:
    """Read the newest verified backup from the storage, byte by byte.

    Raises RepositoryError if every copy is damaged.
    """
    newest = copies[0].manifest
    for number, one in enumerate(copies, start=1):
        try:
            _read_back_copy(repository, one)
            break
        except RepositoryError:
            if number == len(copies):
                raise
    print(f"{newest.id}, the newest verified backup, was read back completely.", flush=True)


def _read_back_copy(repository: Repository, one: Stored) -> None:
    for name, file in one.manifest.files.items():
        if repository.describe(one.snapshot.id, f"{one.snapshot.path}/{name}", file.bytes) != file:
            raise RepositoryError(
                f"the off-site copy of {name} in the newest verified backup, {one.manifest.id}, differs from the file "
                "that was sent. Nothing was deleted. Next: make backup, then find out what changed the file in "
                "the storage"
            )


if __name__ == "__main__":
    sys.exit(main())
