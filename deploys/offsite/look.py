"""Compares the snapshots in the off-site storage with the snapshots that earlier runs saw: `make offsite ENV=prod`.

The ledger is a file in the checkout, which the droplet cannot reach. For each snapshot, the ledger has the manifest's
hash, the storage's date, and the day on which the snapshot was first seen. An intruder on the droplet can send
snapshots, but cannot change the day on which a snapshot was first seen. `python -m deploys.offsite.look
inventories/prod.py` lists the storage and records new snapshots. The exit code is 0 if there are only new snapshots, 1
after a failure, and 4 if a known snapshot or the repository has changed, so that a person must look.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

from deploys.config.environments import environment_of, group_data
from deploys.config.settings import load_settings
from deploys.offsite.restic import Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED, NEEDS_A_PERSON
from stackctl.backup import stored
from stackctl.backup.manifest import NAME
from stackctl.backup.stored import SKEW, Stored
from stackctl.core import durable
from stackctl.core.errors import StackError
from stackctl.core.printable import printable


@dataclass(frozen=True)
class Seen:
    """The state of a snapshot at the look that first saw the snapshot."""

    backup: str
    manifest: str
    """The manifest's SHA-256."""
    stored: datetime
    """The storage's date of the snapshot."""
    first_seen: datetime


@dataclass(frozen=True)
class Ledger:
    """The record of all snapshots that were seen in a repository."""

    url: str
    repository: str = ""
    """restic's ID of the repository. Empty before the first look."""
    looked: datetime | None = None
    """Time of the last look."""
    pruned: datetime | None = None
    """Time at which `make prune` last finished."""
    snapshots: Mapping[str, Seen] = field(default_factory=dict)
    dropping: Sequence[str] = ()
    """IDs of the snapshots that a prune began to delete. After a killed prune, a snapshot may still be there or not."""


@dataclass(frozen=True)
class Look:
    """The content of the off-site storage at one moment."""

    known: Ledger
    """The ledger before this look."""
    repository: str
    listed: frozenset[str]
    """IDs of all snapshots, readable or not."""
    seen: Mapping[str, Seen]
    found: Sequence[Stored]
    """The backups with their doubts, oldest first."""
    unread: Sequence[str]
    """A line for each snapshot that is no backup."""
    alarms: Sequence[str]
    """A line for each change since the last look, except for new snapshots."""
    at: datetime


def now() -> datetime:
    """Return the time in UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def look(repository: Repository, known: Ledger) -> Look:
    """Read every manifest in the storage, about one per second. Raises RepositoryError if a date is missing."""
    at = now()
    identity = str(repository.json("cat", "config")["id"])
    listed = stored.snapshots(repository.restic("snapshots", "--json", "--host", repository.app))
    found, unread, seen = [], [], {}
    for snapshot in listed:
        try:
            text = repository.restic("dump", snapshot.id, f"{snapshot.path}/{NAME}")
            manifest = stored.read(text, snapshot)
        except (RepositoryError, StackError) as error:
            unread.append(f"Snapshot {snapshot.id[:8]} stays, but is no backup: {printable(str(error))}")
            continue
        date = repository.stored_at(snapshot.id)
        found.append(Stored(snapshot, manifest, date))
        digest = hashlib.sha256(text.encode()).hexdigest()
        seen[snapshot.id] = Seen(snapshot.backup, digest, date, at)
    ids = frozenset(snapshot.id for snapshot in listed)
    doubts = _doubts(known, seen)
    return Look(
        known=known,
        repository=identity,
        listed=ids,
        seen=seen,
        found=[_also(one, doubts.get(one.snapshot.id)) for one in stored.judged(found)],
        unread=unread,
        alarms=_alarms(known, identity, ids, seen, doubts),
        at=at,
    )


def remembered(seen: Look, *, accepted: bool = False) -> Ledger:
    """Return the ledger after a look.

    A snapshot that raised an alarm is only recorded if a person `accepted` the snapshot.
    """
    known = seen.known
    trusted = accepted or not known.repository
    doubtful = set[str]() if trusted else {*_doubts(known, seen.seen)}
    kept = {
        number: one
        for number, one in known.snapshots.items()
        if number in seen.listed or not (trusted or number in known.dropping)
    }
    for number, one in seen.seen.items():
        first = known.snapshots.get(number)
        if number not in doubtful:
            kept[number] = replace(one, first_seen=first.first_seen) if first else one
    identity = seen.repository if trusted else known.repository
    return replace(known, repository=identity, looked=seen.at, snapshots=kept, dropping=())


def without(known: Ledger, dropped: Sequence[str], at: datetime) -> Ledger:
    """Return the ledger without the snapshots that a prune has deleted."""
    left = {number: one for number, one in known.snapshots.items() if number not in dropped}
    return replace(known, pruned=at, snapshots=left, dropping=())


def load(path: Path, url: str) -> Ledger:
    """Read the ledger of a repository. Without a file, or if the file is about another repository, the ledger is empty.

    Raises RepositoryError.
    """
    if not path.is_file():
        return Ledger(url)
    try:
        document = json.loads(path.read_bytes())
        if document["url"] != url:
            return Ledger(url)
        entries = document["snapshots"].items()
        return Ledger(
            url,
            document["repository"],
            _moment(document["looked"]),
            _moment(document["pruned"]),
            {number: _seen(one) for number, one in entries},
            [str(number) for number in document["dropping"]],
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RepositoryError(f"{path} is malformed. Next: git checkout {path}") from None


def save(path: Path, ledger: Ledger) -> None:
    """Write the ledger atomically. The entries are sorted, so that a diff shows only new entries."""
    document = {
        "url": ledger.url,
        "repository": ledger.repository,
        "looked": _text(ledger.looked),
        "pruned": _text(ledger.pruned),
        "dropping": [*ledger.dropping],
        "snapshots": {
            number: {
                "backup": one.backup,
                "manifest": one.manifest,
                "stored": _text(one.stored),
                "first_seen": _text(one.first_seen),
            }
            for number, one in sorted(ledger.snapshots.items(), key=lambda item: (item[1].backup, item[0]))
        },
    }
    durable.write(path, json.dumps(document, indent=2).encode() + b"\n", 0o644)


def _doubts(known: Ledger, seen: Mapping[str, Seen]) -> dict[str, str]:
    """Return a doubt for each snapshot that contradicts the ledger, by snapshot ID."""
    doubts = {}
    for number, one in seen.items():
        before = known.snapshots.get(number)
        if before and replace(one, first_seen=before.first_seen) != before:
            doubts[number] = f"it is no longer what was seen on {before.first_seen:%Y-%m-%d}"
        if not before and known.looked and one.stored < known.looked - SKEW:
            date = _text(known.looked)
            doubts[number] = f"its date in the storage is before the last look ({date}), which did not see it"
    return doubts


def _alarms(
    known: Ledger, repository: str, listed: frozenset[str], seen: Mapping[str, Seen], doubts: Mapping[str, str]
) -> list[str]:
    alarms = [f"snapshot {number[:8]}: {doubt}" for number, doubt in doubts.items()]
    if known.repository and known.repository != repository:
        alarms.append(f"{known.url} is not the repository of the last look ({_text(known.looked)})")
    for number, one in known.snapshots.items():
        name = f"{one.backup} (snapshot {number[:8]}, stored {one.stored:%Y-%m-%d})"
        if number in listed and number not in seen:
            alarms.append(f"{name} can't be read any more")
        if number not in listed and number not in known.dropping:
            alarms.append(f"{name} is gone, and make prune did not drop it")
    return alarms


def _also(one: Stored, doubt: str | None) -> Stored:
    return replace(one, doubts=(*one.doubts, doubt)) if doubt else one


def _seen(entry: Mapping[str, str]) -> Seen:
    stored_at, first_seen = (_time(entry[name]) for name in ("stored", "first_seen"))
    return Seen(entry["backup"], entry["manifest"], stored_at, first_seen)


def _time(text: str) -> datetime:
    """Read a time. Raises ValueError if the time has no UTC offset, because such a time cannot be compared."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def _moment(text: str | None) -> datetime | None:
    return _time(text) if text else None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def report(seen: Look, after: Ledger) -> list[str]:
    """Return a line for each snapshot, each doubt and each alarm."""
    lines = [f"{after.url}: {len(seen.found)} snapshots of backups"]
    for one in seen.found:
        known = after.snapshots.get(one.snapshot.id)
        since = f"known since {known.first_seen:%Y-%m-%d}" if known else "not known"
        lines.append(f"  {one.name}, {since}")
        lines += [f"    in doubt: {doubt}" for doubt in one.doubts]
    return [*lines, *seen.unread, *seen.alarms]


def looked(repository: Repository, path: Path) -> tuple[int, list[str]]:
    """Read the storage and record its snapshots in the ledger. Return the exit code and the report."""
    seen = look(repository, load(path, repository.url))
    after = remembered(seen)
    save(path, after)
    return NEEDS_A_PERSON if seen.alarms else DONE, report(seen, after)


def main(inventory: str) -> int:
    """Read the storage of an environment, print the report and return the exit code."""
    try:
        settings = load_settings(group_data(environment_of(inventory)))
        code, lines = looked(Repository.of(settings), Path(settings.values.backups_ledger))
    except PyinfraError as error:
        print(printable(f"look: {error}"), file=sys.stderr)
        return FAILED
    print("\n".join(map(printable, lines)))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
