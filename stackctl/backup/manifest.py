"""manifest.json: what a backup is, told beside its data. Checked whole before it is believed.

It names every file of the backup but itself: what lies beside them is used by nobody, and is a fault.
Version 1 was of dumps that nobody had restored; they are no backups to anything that reads this.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from stackctl.core import names, openat
from stackctl.core.errors import FailedError
from stackctl.core.openat import Directory

NAME = "manifest.json"
DUMP = "postgres.dump"
GLOBALS = "globals.sql"
RDB = "redis.rdb"
STATE = "state.json"
VERSION = 2
ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z", re.ASCII)
LONGEST = 32 << 20
"""Bytes of a manifest: a table takes some fifty."""
MOST_TOLD = 500
"""Characters of why a dump is unproven."""
MOST = (1 << 63) - 1
"""The highest number that is believed, as PostgreSQL counts."""

Reason = Literal["nightly", "asked", "release", "safety"]
"""`release`: of before its migrations; it is never verified. `safety`: of before a restore."""


@dataclass(frozen=True)
class File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Postgres:
    version: str
    """As `SHOW server_version` has it."""
    database: str
    bytes: int
    """Of the live database, indexes and all: what a restore needs."""

    @property
    def major(self) -> int:
        return int(re.split("[^0-9]", self.version)[0])


@dataclass(frozen=True)
class Redis:
    version: str
    keys: int
    """In the file, those among it that have expired since."""


@dataclass(frozen=True)
class Verified:
    """That it was restored, and held what was dumped."""

    at: str
    seconds: float
    rows: int


@dataclass(frozen=True)
class Offsite:
    """That it lies off the droplet, and was read back there."""

    at: str
    snapshot: str


@dataclass(frozen=True)
class Manifest:
    """`sequence` has the order: a clock may jump."""

    id: str
    app: str
    reason: Reason
    at: str
    """ISO 8601, UTC: when its snapshot was taken."""
    sequence: int
    release: Mapping[str, Any] | None
    """The live one, as state.json has it."""
    schema: str | None
    """The newest revision that was applied to the data."""
    postgres: Postgres
    redis: Redis | None
    tables: Mapping[str, int]
    """Rows by schema.table."""
    files: Mapping[str, File]
    verified: Verified | None = None
    offsite: Offsite | None = None
    unproven: str | None = None
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
    if len(text) > LONGEST:
        raise FailedError(f"{where} has more than {LONGEST} bytes: {_REMEDY}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FailedError(f"{where} is no JSON ({error}): {_REMEDY}") from None
    if fault := _problem(document):
        raise FailedError(f"{where}: {fault[:MOST_TOLD]}: {_REMEDY}")  # its names are in it, which may be millions
    del document["version"]
    for name, kind in (("postgres", Postgres), ("redis", Redis), ("verified", Verified), ("offsite", Offsite)):
        document[name] = kind(**document[name]) if document[name] else None
    document["files"] = {name: File(**file) for name, file in document["files"].items()}
    return Manifest(**document)


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


def _like(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value, re.ASCII))


def _table(value: Any) -> bool:
    """Two names of PostgreSQL's, which may have anything in them."""
    return isinstance(value, str) and 0 < len(value) <= 2 * 63 + 1


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _seconds(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value <= MOST


def _time(value: Any) -> bool:
    """Of this millennium: nobody reckons with a day before the first or after the last."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return at.tzinfo is not None and 2000 <= at.year < 3000


def _said(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_TOLD and value.isprintable()


def _release(value: Any) -> bool:
    """Only what is read of it: one of an older stackctl may have less, one of a newer may have more."""
    return isinstance(value, dict) and _like(r"[\w.-]{1,64}")(value.get("id")) and _like(names.TAG)(value.get("tag"))


def _object(**rules: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == rules.keys()
        and all(good(value[key]) for key, good in rules.items())
    )


def _each(name: Callable[[Any], bool], good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(name(key) and good(one) for key, one in value.items())


def _or_null(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


_SHA256 = _like("[0-9a-f]{64}")
_VERSION = _like(r"\d{1,4}([. a-z][ -~]{0,200})?")
REVISION = "[!-~]{1,200}"
"""A revision of the schema, as the app names it: one word."""
_RULES: dict[str, Callable[[Any], bool]] = {
    "id": _like(ID.pattern),
    "app": _like("[a-z][a-z0-9]{0,30}"),
    "reason": lambda value: value in get_args(Reason),
    "at": _time,
    "sequence": _count,
    "release": _or_null(_release),
    "schema": _or_null(_like(REVISION)),
    "postgres": _object(version=_VERSION, database=_like("[a-z][a-z0-9_]{0,62}"), bytes=_count),
    "redis": _or_null(_object(version=_VERSION, keys=_count)),
    "tables": _each(_table, _count),
    "files": _each(_like("[a-z.]{1,64}"), _object(bytes=_count, sha256=_SHA256)),
    "verified": _or_null(_object(at=_time, seconds=_seconds, rows=_count)),
    "offsite": _or_null(_object(at=_time, snapshot=_like(r"\w[\w.-]{0,63}"))),
    "unproven": _or_null(_said),
}


def _problem(document: Any) -> str | None:
    """The first thing that is wrong with it, or None."""
    if not isinstance(document, dict):
        return "is no object"
    if document.get("version") != VERSION:
        return f"is of version {document.get('version')!r}, not {VERSION}"
    known = {field.name for field in fields(Manifest)} | {"version"}
    faults = [f"{key} is missing" for key in sorted(known - {"unproven"} - document.keys())]
    faults += [f"{key} is unknown" for key in sorted(document.keys() - known)]
    faults += [f"{key} makes no sense" for key, good in _RULES.items() if not faults and not good(document.get(key))]
    if not faults:
        faults += ["it is verified and unproven"] if document["verified"] and document.get("unproven") else []
        whole = {DUMP, GLOBALS, STATE, *([RDB] if document["redis"] else [])}
        faults += [f"files has no {name}" for name in sorted(whole - document["files"].keys())]
        faults += [
            f"files has {name}, which is none of a backup's" for name in sorted(document["files"].keys() - whole)
        ]
    return ", ".join(faults) or None
