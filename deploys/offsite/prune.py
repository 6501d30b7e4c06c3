"""Drops old backups off the droplet: `python -m deploys.offsite.prune inventories/prod.py`, or `make prune ENV=prod`.

It runs on the operator's machine, with the operator's key, since the droplet's is not to delete. What goes is chosen
by the storage's own dates and by what was seen there before (look.py): a manifest's dates and numbers are the
sender's word. It is shown, and dropped by explicit IDs. Nothing goes before the newest verified backup has been read
back from the storage, and nothing that the storage took less than FLOOR ago.
Exits 0 done | 1 failed, and said at what | 2 refused, nothing dropped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import group_data, place_of
from deploys.config.settings import load_settings
from deploys.offsite import look
from deploys.offsite.repository import OPERATOR, Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED
from deploys.terminal.prompt import confirm
from stackctl.backup import manifest, retention
from stackctl.backup.offsite import download
from stackctl.backup.stored import Stored
from stackctl.core.errors import RefusedError, StackError
from stackctl.core.printable import printable

DAILY, WEEKLY, MONTHLY = 7, 4, 6
FLOOR = timedelta(days=60)
"""Nothing younger than this goes, by the storage's own dates: so long there is to find out about a break-in. restic's
manual asks for such a floor wherever keys only append ("Security considerations in append-only mode")."""
READ = "5%"
"""Of all that is stored, read anew by each check, at random."""
LONG_S = 6 * 3600


@dataclass(frozen=True)
class Plan:
    """What stays and what goes, both oldest first."""

    keep: Sequence[Stored]
    drop: Sequence[Stored]
    unexplained: str = ""
    """Why a person has to look: more goes than the time since the last prune explains."""

    @property
    def proof(self) -> Sequence[Stored]:
        """The newest verified one that is in no doubt, and its copies; empty if there is none."""
        clear = [one for one in self.keep if one.manifest.verified and not one.doubts]
        return [one for one in clear if one.manifest.id == clear[-1].manifest.id]

    @property
    def shrunk(self) -> str:
        """Why a person has to look: the newest dump is much smaller than one of those that go."""
        dump = manifest.DUMP
        largest = max((one.manifest.files[dump].bytes for one in self.drop), default=0)
        if not self.proof or 2 * self.proof[0].manifest.files[dump].bytes >= largest:
            return ""
        newest = self.proof[0].manifest
        return (
            f"The dump of {newest.id}, the newest verified, has {newest.files[dump].bytes / 1e6:.1f} MB, and one of "
            f"those that go has {largest / 1e6:.1f} MB: look at what was lost, and who sent it."
        )


def plan(found: Sequence[Stored], now: datetime, pruned: datetime | None, floor: timedelta = FLOOR) -> Plan:
    """Choose by the storage's dates. What is in doubt stays, and takes nobody's place.

    `pruned`: when a prune last came to an end.
    """
    clear = [one for one in found if not one.doubts]
    first = {one.manifest.id: one.at for one in sorted(clear, key=lambda one: one.at, reverse=True)}
    told = {one.manifest.id: one.manifest for one in clear}
    dated = [replace(told[name], at=first[name].isoformat(), sequence=rank) for rank, name in enumerate(told)]
    ids = retention.choose(dated, DAILY, WEEKLY, MONTHLY)
    stays = [bool(one.doubts) or one.manifest.id in ids or now - one.at < floor for one in found]
    drop = [one for one, stay in zip(found, stays, strict=True) if not stay]
    return Plan(
        keep=[one for one, stay in zip(found, stays, strict=True) if stay],
        drop=drop,
        unexplained=_unexplained(drop, now, pruned, floor),
    )


def _unexplained(drop: Sequence[Stored], now: datetime, pruned: datetime | None, floor: timedelta) -> str:
    """The last prune left what was younger than the floor, and a backup for each of the months before.

    So what goes now has passed the floor since, but for one backup of a month for each month that has begun.
    """
    if not drop:
        return ""
    if not pruned:
        return "No prune has come to an end yet, as far as the ledger knows."
    months = 12 * (now.year - pruned.year) + now.month - pruned.month
    older = {one.manifest.id for one in drop if one.at <= pruned - floor}
    if len(older) <= months:
        return ""
    return (
        f"{len(older)} of those that go were older than {floor.days} days at the last prune ({pruned:%Y-%m-%d}), which "
        f"left them. The time since explains {months} of them: look at what made them go."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploys.offsite.prune")
    parser.add_argument("inventory")
    parser.add_argument("--yes", action="store_true", help="don't ask whether")
    arguments = parser.parse_args()
    try:
        settings = load_settings(group_data(place_of(arguments.inventory)))
        return prune(Repository.of(settings), Path(settings.values.backups_ledger), sure=arguments.yes)
    except (PyinfraError, StackError) as error:
        print(printable(f"prune: {error}"), file=sys.stderr)
        return error.code if isinstance(error, StackError) else FAILED


def prune(repository: Repository, ledger: Path, *, sure: bool) -> int:
    """Raises RepositoryError."""
    if not repository.exists(OPERATOR):
        raise RepositoryError(f"{repository.url}: there is no repository yet: make offsite")
    # Locks that a killed run left: on this machine, or not renewed for half an hour.
    repository.restic("unlock")
    print(f"{repository.url}: {download.READING}", flush=True)
    seen = look.look(repository, look.load(ledger, repository.url))
    look.save(ledger, look.remembered(seen))
    chosen = plan(seen.found, seen.at, seen.known.pruned)
    needs_a_person = [*seen.alarms, *filter(None, [chosen.unexplained, chosen.shrunk])]
    print("\n".join(map(printable, [*told(chosen), *seen.unread, *needs_a_person])), flush=True)
    if not chosen.drop:
        look.save(ledger, look.without(look.remembered(seen), (), seen.at))
        print("Nothing is to be dropped.")
        return DONE
    if not chosen.proof:
        raise RefusedError("no backup here is verified, so none is deleted")
    asked = bool(needs_a_person) or not sure
    if asked:
        confirm("Drop them?", "" if needs_a_person else ". Next: confirm in advance with YES=1 (--yes)")
    prove(repository, chosen.proof)
    dropped = [one.snapshot.id for one in chosen.drop]
    known = look.remembered(seen, accepted=asked)
    look.save(ledger, replace(known, dropping=dropped))
    repository.restic("forget", "--prune", *dropped, timeout=LONG_S)
    look.save(ledger, look.without(known, dropped, seen.at))
    repository.restic("check", f"--read-data-subset={READ}", timeout=LONG_S)
    print(f"Dropped {len(chosen.drop)}. What is left was checked, {READ} of it read.")
    return DONE


def told(chosen: Plan) -> list[str]:
    """The plan, a line each, and a line for each doubt."""
    lines = []
    for what, group in (("keep", chosen.keep), ("DROP", chosen.drop)):
        for one in group:
            verified = "verified" if one.manifest.verified else "not verified"
            lines.append(
                f"  {what}  {one.snapshot.id[:8]}  {one.manifest.id}  {one.manifest.reason:<7}  "
                f"{one.manifest.bytes / 1e6:8.1f} MB  {one.manifest.rows} rows  {verified}  stored {one.at:%Y-%m-%d}"
            )
    doubts = [f"{one.name} stays, and is in doubt: {doubt}" for one in chosen.keep for doubt in one.doubts]
    head = (
        f"{len(chosen.keep)} stay, by {DAILY} daily, {WEEKLY} weekly, {MONTHLY} monthly, and all of {FLOOR.days} days; "
        f"{len(chosen.drop)} go:"
    )
    return [head, *lines, *doubts]


def prove(repository: Repository, copies: Sequence[Stored]) -> None:
    """That the newest verified backup is there to its last byte, in one of its copies. Raises RepositoryError."""
    newest = copies[0].manifest
    for number, one in enumerate(copies, start=1):
        try:
            _read_back(repository, one)
            break
        except RepositoryError:
            if number == len(copies):
                raise
    print(f"{newest.id}, the newest verified, was read back whole.", flush=True)


def _read_back(repository: Repository, one: Stored) -> None:
    for name, file in one.manifest.files.items():
        if repository.describe(one.snapshot.id, f"{one.snapshot.path}/{name}", file.bytes) != file:
            raise RepositoryError(
                f"{name} of {one.manifest.id}, the newest verified backup, is not what was sent: nothing is dropped; "
                "make backup, and look into the storage"
            )


if __name__ == "__main__":
    sys.exit(main())
