"""manifest.json: what a backup is, told beside its data. Checked whole before it is believed.

Version 1 was of dumps that nobody had restored; they are no backups to anything that reads this.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from . import durable
from .errors import FailedError

NAME = "manifest.json"
DUMP = "postgres.dump"
GLOBALS = "globals.sql"
RDB = "redis.rdb"
STATE = "state.json"
VERSION = 2
ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z", re.ASCII)

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
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"


def parse(text: str | bytes, where: object) -> Manifest:
    """Raises FailedError, which says what is wrong with the one that is `where`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FailedError(f"{where} is no JSON ({error}): {_REMEDY}") from None
    if fault := _problem(document):
        raise FailedError(f"{where}: {fault}: {_REMEDY}")
    del document["version"]
    for name, kind in (("postgres", Postgres), ("redis", Redis), ("verified", Verified), ("offsite", Offsite)):
        document[name] = kind(**document[name]) if document[name] else None
    document["files"] = {name: File(**file) for name, file in document["files"].items()}
    return Manifest(**document)


def load(directory: Path) -> Manifest:
    """The manifest of the backup that lies there. Raises FailedError."""
    path = directory / NAME
    try:
        found = parse(path.read_bytes(), path)
    except FileNotFoundError:
        raise FailedError(f"{path} is missing: {_REMEDY}") from None
    if found.id != directory.name.removesuffix(UNFINISHED):
        raise FailedError(f"{path} is the one of {found.id}: {_REMEDY}")
    return found


def save(directory: Path, manifest: Manifest) -> None:
    durable.write(directory / NAME, manifest.to_json().encode())


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
    size = file.stat().st_size
    if not size:
        raise FailedError(f"{file.name} is empty: see the log of what wrote it (stackctl logs postgres|redis)")
    with file.open("rb") as content:
        durable.sync(content)
        return File(size, hashlib.file_digest(content, "sha256").hexdigest())


def differing(directory: Path, manifest: Manifest) -> list[str]:
    """Which files are not what the manifest says, a line each."""
    lines = []
    for name, told in manifest.files.items():
        path = directory / name
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif (size := path.stat().st_size) != told.bytes:
            lines.append(f"{name} has {size} bytes, its manifest says {told.bytes}")
        elif describe(path).sha256 != told.sha256:
            lines.append(f"{name} is not what was written (its SHA-256 differs)")
    return lines


UNFINISHED = ".partial"
_REMEDY = "take another backup, then remove this one (stackctl backups)"


def _directories(backups: Path) -> list[Path]:
    return sorted(path for path in backups.glob("*") if ID.fullmatch(path.name) and path.is_dir())


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


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _seconds(value: Any) -> bool:
    return type(value) in {int, float} and value >= 0


def _time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _version(value: Any) -> bool:
    return isinstance(value, str) and bool(re.match("[0-9]", value))


def _release(value: Any) -> bool:
    """Only what is read of it: one of an older stackctl may have less, one of a newer may have more."""
    return isinstance(value, dict) and _text(value.get("id")) and _text(value.get("tag"))


def _object(**rules: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == rules.keys()
        and all(good(value[key]) for key, good in rules.items())
    )


def _each(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(good(one) for one in value.values())


def _or_null(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


def _files(value: Any) -> bool:
    """Names that lead nowhere else, and a dump among them."""
    each = _each(_object(bytes=_count, sha256=_sha256))
    return each(value) and DUMP in value and not any("/" in name or name in {"", ".", ".."} for name in value)


_RULES: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: isinstance(value, str) and bool(ID.fullmatch(value)),
    "app": _text,
    "reason": lambda value: value in get_args(Reason),
    "at": _time,
    "sequence": _count,
    "release": _or_null(_release),
    "schema": _or_null(_text),
    "postgres": _object(version=_version, database=_text, bytes=_count),
    "redis": _or_null(_object(version=_version, keys=_count)),
    "tables": _each(_count),
    "files": _files,
    "verified": _or_null(_object(at=_time, seconds=_seconds, rows=_count)),
    "offsite": _or_null(_object(at=_time, snapshot=_text)),
}


def _problem(document: Any) -> str | None:
    """The first thing that is wrong with it, or None."""
    if not isinstance(document, dict):
        return "is no object"
    if document.get("version") != VERSION:
        return f"is of version {document.get('version')!r}, not {VERSION}"
    known = {field.name for field in fields(Manifest)} | {"version"}
    faults = [f"{key} is missing" for key in sorted(known - document.keys())]
    faults += [f"{key} is unknown" for key in sorted(document.keys() - known)]
    faults += [f"{key} makes no sense" for key, good in _RULES.items() if not faults and not good(document[key])]
    return ", ".join(faults) or None
