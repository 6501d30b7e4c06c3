"""manifest.json: what a backup is, told beside its data. Checked whole before it is believed.

It names every file of the backup but itself: what lies beside them is used by nobody, and is a fault.
Version 1 was of dumps that nobody had restored; they are no backups to anything that reads this.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from stackctl.core import names, openat, records
from stackctl.core.errors import FailedError
from stackctl.core.openat import Directory
from stackctl.core.records import MOST, Count, RecordError, Rule, matching

NAME = "manifest.json"
DUMP = "postgres.dump"
GLOBALS = "globals.sql"
RDB = "redis.rdb"
STATE = "state.json"
VERSION = 2
ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z", re.ASCII)
LONGEST = records.LONGEST
MOST_TOLD = 500
"""Characters of why a dump is unproven."""
Reason = Literal["nightly", "asked", "release", "safety"]
"""`release`: of before its migrations; it is never verified. `safety`: of before a restore."""


REVISION = "[!-~]{1,200}"
"""A revision of the schema, as the app names it: one word."""


def _is_time(text: str) -> bool:
    """Accept a time of this millennium: Python's arithmetic fails beyond its first and last day."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return at.tzinfo is not None and 2000 <= at.year < 3000


def _is_release(value: Mapping[str, Any]) -> bool:
    """Check what is read of it: one of an older stackctl may have less, one of a newer may have more."""
    return all(
        isinstance(value.get(key), str) and re.fullmatch(pattern, value[key], re.ASCII)
        for key, pattern in (("id", r"[\w.-]{1,64}"), ("tag", names.TAG))
    )


Time = Annotated[str, Rule(_is_time, "a time of this millennium with its zone")]
Version = Annotated[str, matching(r"\d{1,4}([. a-z][ -~]{0,200})?", "a version")]
Table = Annotated[str, Rule(lambda name: 0 < len(name) <= 2 * 63 + 1, "a schema and a table")]
"""Two names of PostgreSQL, which may contain anything."""
FileName = Annotated[str, matching("[a-z.]{1,64}", "the name of a backup's file")]
Line = Annotated[
    str,
    Rule(lambda text: 0 < len(text) <= MOST_TOLD and text.isprintable(), f"a line of at most {MOST_TOLD} characters"),
]


@dataclass(frozen=True)
class File:
    bytes: Count
    sha256: Annotated[str, matching("[0-9a-f]{64}", "a SHA-256")]


@dataclass(frozen=True)
class Postgres:
    version: Version
    """As `SHOW server_version` has it."""
    database: Annotated[str, matching("[a-z][a-z0-9_]{0,62}", "the name of a database")]
    bytes: Count
    """Of the live database, indexes and all: what a restore needs."""

    @property
    def major(self) -> int:
        return int(re.split("[^0-9]", self.version)[0])


@dataclass(frozen=True)
class Redis:
    version: Version
    keys: Count
    """In the file, those among it that have expired since."""


@dataclass(frozen=True)
class Verified:
    """That it was restored, and held what was dumped."""

    at: Time
    seconds: Annotated[float, Rule(lambda value: value >= 0, "a number, 0 or more")]
    rows: Count


@dataclass(frozen=True)
class Offsite:
    """That it lies off the droplet, and was read back there."""

    at: Time
    snapshot: Annotated[str, matching(r"\w[\w.-]{0,63}", "the ID of a snapshot")]


@dataclass(frozen=True)
class Manifest:
    """`sequence` has the order: a clock may jump."""

    id: Annotated[str, matching(ID.pattern, "the ID of a backup")]
    app: Annotated[str, matching("[a-z][a-z0-9]{0,30}", "the name of an app")]
    reason: Reason
    at: Time
    """ISO 8601, UTC: when its snapshot was taken."""
    sequence: Count
    release: Annotated[Mapping[str, Any], Rule(_is_release, "a release with its id and tag")] | None
    """The live one, as state.json has it."""
    schema: Annotated[str, matching(REVISION, "a revision of the schema")] | None
    """The newest revision that was applied to the data."""
    postgres: Postgres
    redis: Redis | None
    tables: Mapping[Table, Count]
    """Rows by schema.table."""
    files: Mapping[FileName, File]
    verified: Verified | None
    offsite: Offsite | None
    unproven: Line | None = None
    """Why it could not be restored for proof, though it is all that was dumped."""

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def rows(self) -> int:
        return sum(self.tables.values())

    @property
    def bytes(self) -> int:
        """Of all of its files."""
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> str:
        """Older ones have no `unproven`, and a proven one has none: whatever reads these reads them all."""
        document = {"version": VERSION, **asdict(self)}
        if self.unproven is None:
            del document["unproven"]
        return json.dumps(document, indent=2) + "\n"


def parse(text: str | bytes, where: object) -> Manifest:
    """Raises FailedError, which says what is wrong with the one that is `where`."""
    try:
        manifest = records.loads(Manifest, text, version=VERSION)
    except RecordError as error:
        raise FailedError(f"{where}: {str(error)[:MOST_TOLD]}: {_REMEDY}") from None
    if fault := _inconsistency(manifest):
        raise FailedError(f"{where}: {fault}: {_REMEDY}")
    return manifest


def load(directory: Path) -> Manifest:
    """The manifest of the backup that lies there. Raises FailedError."""
    path = directory / NAME
    try:
        with _opened(directory) as there:
            found = parse(there.read(NAME, LONGEST), path)
    except FileNotFoundError:
        raise FailedError(f"{path} is missing: {_REMEDY}") from None
    if found.id != directory.name.removesuffix(UNFINISHED):
        raise FailedError(f"{path} is the one of {found.id}: {_REMEDY}")
    return found


def save(directory: Path, manifest: Manifest) -> None:
    """Raises FailedError for one that nobody could read again: what a container said is in it, too."""
    text = manifest.to_json()
    parse(text, directory / NAME)
    with _opened(directory) as there:
        there.write(NAME, text.encode())


def every(backups: Path) -> list[Manifest]:
    """Those of all whole backups here, oldest first. One that can't be read is none: `unreadable` names it."""
    return in_order(found for found in map(_loaded, _directories(backups)) if found)


def unreadable(backups: Path) -> list[str]:
    """What is named like a backup and is none, with the reason."""
    return [fault for fault in map(_fault, _directories(backups)) if fault]


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Oldest first. Of two droplets that counted alike, each after a restore, the time has to tell."""
    return sorted(manifests, key=lambda one: (one.sequence, one.time, one.id))


def describe(file: Path) -> File:
    """Raises FailedError for an empty one. It is on the disk afterwards."""
    with _opened(file.parent) as there:
        return _described(there, file.name, MOST)


def differing(directory: Path, manifest: Manifest) -> list[str]:
    """What is not as the manifest says, a line each: files that differ, and what it does not name."""
    try:
        with _opened(directory) as there:
            # A save that was killed leaves the second one.
            known = {*manifest.files, NAME, f"{NAME}.new"}
            unnamed = [name for name in there.names() if name not in known]
            faults = [_difference(there, name, told) for name, told in manifest.files.items()]
    except FileNotFoundError:
        return [f"{name} is missing" for name in manifest.files]
    more = [f"and {len(unnamed) - SHOWN} more"] if len(unnamed) > SHOWN else []
    lines = [f"{name!a} is not named in its manifest" for name in unnamed[:SHOWN]] + more
    return [*filter(None, faults), *lines]


UNFINISHED = ".partial"
SHOWN = 5
_REMEDY = "take another backup, then remove this one (stackctl backups)"


def _directories(backups: Path) -> list[Path]:
    return sorted(path for path in backups.glob("*") if ID.fullmatch(path.name))


def _opened(directory: Path) -> AbstractContextManager[Directory]:
    return openat.directory(directory.parent, directory.name)


def _described(there: Directory, name: str, most: int) -> File:
    size = there.size(name)
    if not size:
        raise FailedError(f"{name} is empty: see the log of what wrote it (stackctl logs postgres|redis)")
    digest = hashlib.sha256()
    for block in there.blocks(name, most):
        digest.update(block)
    with there.reading(name, most) as content:
        os.fsync(content.fileno())
    return File(size, digest.hexdigest())


def _difference(there: Directory, name: str, told: File) -> str | None:
    try:
        size = there.size(name)
        if size != told.bytes:
            return f"{name} has {size} bytes, its manifest says {told.bytes}"
        if _described(there, name, told.bytes).sha256 != told.sha256:
            return f"{name} is not what was written (its SHA-256 differs)"
    except FileNotFoundError:
        return f"{name} is missing"
    except FailedError as error:
        return str(error)
    return None


def _loaded(directory: Path) -> Manifest | None:
    try:
        return load(directory)
    except FailedError:
        return None


def _fault(directory: Path) -> str | None:
    try:
        load(directory)
    except FailedError as error:
        return str(error)
    return None


def _inconsistency(manifest: Manifest) -> str:
    faults = ["it is verified and unproven"] if manifest.verified and manifest.unproven else []
    whole = {DUMP, GLOBALS, STATE, *([RDB] if manifest.redis else [])}
    faults += [f"files has no {name}" for name in sorted(whole - manifest.files.keys())]
    faults += [f"files has {name}, which is none of a backup's" for name in sorted(manifest.files.keys() - whole)]
    return ", ".join(faults)[:MOST_TOLD]
