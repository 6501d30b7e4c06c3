"""Drops old backups off the droplet: `python -m deploys.prune inventories/prod.py`, or `make prune ENV=prod`.

It runs on the operator's machine, with the operator's key, since the droplet's is not to delete. What goes is chosen
from the backups' manifests, shown, and dropped by explicit ids. Nothing goes before the newest verified backup has been
read back from the storage: whatever a clock or a manifest says, one is left that can be restored.
Exits 0 done | 1 failed, and said at what | 2 refused, nothing dropped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pyinfra.api.exceptions import PyinfraError
from stackctl import manifest, offsite, retention
from stackctl.errors import StackError
from stackctl.manifest import Manifest
from stackctl.offsite import Snapshot

from deploys.consent import refusal
from deploys.places import group_data, place_of
from deploys.repository import OPERATOR, Repository, RepositoryError
from deploys.settings import load_settings

DAILY, WEEKLY, MONTHLY = 7, 4, 6
READ = "5%"
"""Of all that is stored, read anew by each check, at random."""
LONG_S = 6 * 3600
DONE, FAILED, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Plan:
    """What stays and what goes, both oldest first."""

    keep: Sequence[tuple[Snapshot, Manifest]]
    drop: Sequence[tuple[Snapshot, Manifest]]
    unread: Sequence[str]
    """Why a snapshot is taken for no backup. It stays."""

    @property
    def proof(self) -> tuple[Snapshot, Manifest] | None:
        """The newest verified one."""
        return next(((one, told) for one, told in reversed(self.keep) if told.verified), None)

    @property
    def doubt(self) -> str:
        """Why somebody has to look at it; empty when nobody has.

        Who broke into the droplet can't delete what is here, but send what looks newer, until all of it is to go.
        """
        dump, largest = manifest.DUMP, max((told.files[manifest.DUMP].bytes for _, told in self.drop), default=0)
        if not self.proof or 2 * self.proof[1].files[dump].bytes >= largest:
            return ""
        newest = self.proof[1]
        return (
            f"The dump of {newest.id}, the newest verified, has {newest.files[dump].bytes / 1e6:.1f} MB, and one of "
            f"those that go has {largest / 1e6:.1f} MB: look at what was lost, and who sent it."
        )


def plan(found: Sequence[tuple[Snapshot, Manifest]], unread: Sequence[str] = ()) -> Plan:
    """By manifests alone."""
    order = manifest.in_order(told for _, told in found)
    in_order = sorted(found, key=lambda one: order.index(one[1]))
    ids = retention.choose(order, DAILY, WEEKLY, MONTHLY)
    return Plan(
        keep=[one for one in in_order if one[1].id in ids],
        drop=[one for one in in_order if one[1].id not in ids],
        unread=unread,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploys.prune")
    parser.add_argument("inventory")
    parser.add_argument("--yes", action="store_true", help="don't ask whether")
    arguments = parser.parse_args()
    try:
        settings = load_settings(group_data(place_of(arguments.inventory)))
        return prune(Repository.of(settings), sure=arguments.yes)
    except PyinfraError as error:
        print(f"prune: {error}", file=sys.stderr)
    return FAILED


def prune(repository: Repository, *, sure: bool) -> int:
    """Raises RepositoryError."""
    if not repository.exists(OPERATOR):
        raise RepositoryError(f"{repository.url}: there is no repository yet: make offsite")
    # Locks that a killed run left: on this machine, or not renewed for half an hour.
    repository.restic("unlock")
    print(f"{repository.url}: {offsite.READING}", flush=True)
    chosen = read(repository)
    print("\n".join(told(chosen)), flush=True)
    if not chosen.drop:
        print("Nothing is to be dropped.")
        return DONE
    if not chosen.proof:
        print("prune: no backup here was verified, so none is dropped", file=sys.stderr)
        return REFUSED
    if chosen.doubt:
        sure = False
    if not sure and (why := refusal("Drop them?", "" if chosen.doubt else ": YES=1 (--yes) says yes beforehand")):
        print(f"prune: {why}", file=sys.stderr)
        return REFUSED
    prove(repository, *chosen.proof)
    repository.restic("forget", "--prune", *(snapshot.id for snapshot, _ in chosen.drop), timeout=LONG_S)
    repository.restic("check", f"--read-data-subset={READ}", timeout=LONG_S)
    print(f"Dropped {len(chosen.drop)}. What is left was checked, {READ} of it read.")
    return DONE


def read(repository: Repository) -> Plan:
    """What the storage has, by its snapshots' manifests."""
    listed = repository.restic("snapshots", "--json", "--host", repository.app)
    found, unread = [], []
    for snapshot in offsite.snapshots(listed):
        try:
            text = repository.restic("dump", snapshot.id, f"{snapshot.path}/{manifest.NAME}")
            found.append((snapshot, offsite.read(text, snapshot)))
        except (RepositoryError, StackError) as error:
            unread.append(f"{snapshot.id[:8]} stays, and is no backup: {error}")
    return plan(found, unread)


def told(chosen: Plan) -> list[str]:
    """The plan, a line each."""
    lines = [
        f"  {what}  {snapshot.id[:8]}  {one.id}  {one.reason:<7}  {one.bytes / 1e6:8.1f} MB  {one.rows} rows  "
        + ("verified" if one.verified else "not verified")
        for what, group in (("keep", chosen.keep), ("DROP", chosen.drop))
        for snapshot, one in group
    ]
    head = f"{len(chosen.keep)} stay, by {DAILY} daily, {WEEKLY} weekly, {MONTHLY} monthly; {len(chosen.drop)} go:"
    return [head, *lines, *chosen.unread, *filter(None, [chosen.doubt])]


def prove(repository: Repository, snapshot: Snapshot, newest: Manifest) -> None:
    """That the newest verified backup is there to its last byte. Raises RepositoryError."""
    for name, file in newest.files.items():
        if repository.describe(snapshot.id, f"{snapshot.path}/{name}") != file:
            raise RepositoryError(
                f"{name} of {newest.id}, the newest verified backup, is not what was sent: nothing is dropped; make "
                "backup, and look into the storage"
            )
    print(f"{newest.id}, the newest verified, was read back whole.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
