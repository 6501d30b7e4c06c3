"""The file manifest.json describes a backup, and lies in the backup's directory.

Each manifest is checked completely before use.

The manifest names every file of the backup except manifest.json. Any other file in the directory counts as an error,
and is never used. Dumps whose manifest has version 1 were never verified, so such dumps do not count as backups.
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
"""The reason why a dump is unverified may have at most this many characters."""
Reason = Literal["nightly", "asked", "release", "safety"]
"""A `release` backup precedes a release's migrations and is never verified. `safety` is pre-restore, `asked` manual."""


REVISION = "[!-~]{1,200}"
"""The app's name for a revision of the schema is one word."""


def _is_time(text: str) -> bool:
    """Accept only a time of this millennium, because Python's date arithmetic fails near the years 1 and 9999."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    return at.tzinfo is not None and 2000 <= at.year < 3000


def _is_release(value: Mapping[str, Any]) -> bool:
    """Check only the keys that stackctl reads. Other versions of stackctl may write fewer or more keys."""
    return all(
        isinstance(value.get(key), str) and re.fullmatch(pattern, value[key], re.ASCII)
        for key, pattern in (("id", r"[\w.-]{1,64}"), ("tag", names.TAG))
    )


Time = Annotated[str, Rule(_is_time, "a time of this millennium with its time zone")]
Version = Annotated[str, matching(r"\d{1,4}([. a-z][ -~]{0,200})?", "a version")]
Table = Annotated[str, Rule(lambda name: 0 < len(name) <= 2 * 63 + 1, "a schema and a table")]
"""PostgreSQL's names of a schema and of a table may contain any character."""
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
    """The output of `SHOW server_version`."""
    database: Annotated[str, matching("[a-z][a-z0-9_]{0,62}", "the name of a database")]
    bytes: Count
    """The size of the live database with its indexes. A restore needs as much space."""

    @property
    def major(self) -> int:
        return int(re.split("[^0-9]", self.version)[0])


@dataclass(frozen=True)
class Redis:
    version: Version
    keys: Count
    """The keys in the file, including those that have expired since."""


@dataclass(frozen=True)
class Verified:
    """The proof that the backup is complete, because the backup was restored."""

    at: Time
    seconds: Annotated[float, Rule(lambda value: value >= 0, "a number, 0 or more")]
    rows: Count


@dataclass(frozen=True)
class Offsite:
    """The proof that the backup was sent off the droplet, and that a copy was fetched back and compared."""

    at: Time
    snapshot: Annotated[str, matching(r"\w[\w.-]{0,63}", "the ID of a snapshot")]


@dataclass(frozen=True)
class Manifest:
    """The description of a backup. Backups are ordered by `sequence`, because a clock may jump."""

    id: Annotated[str, matching(ID.pattern, "the ID of a backup")]
    app: Annotated[str, matching("[a-z][a-z0-9]{0,30}", "the name of an app")]
    reason: Reason
    at: Time
    """The time at which the dump began (ISO 8601, UTC)."""
    sequence: Count
    release: Annotated[Mapping[str, Any], Rule(_is_release, "a release with its id and tag")] | None
    """The live release, in the format of state.json."""
    schema: Annotated[str, matching(REVISION, "a revision of the schema")] | None
    """The newest schema revision of the data."""
    postgres: Postgres
    redis: Redis | None
    tables: Mapping[Table, Count]
    """The number of rows of each schema.table."""
    files: Mapping[FileName, File]
    verified: Verified | None
    offsite: Offsite | None
    unproven: Line | None = None
    """The reason why the complete dump could not be restored."""

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def rows(self) -> int:
        return sum(self.tables.values())

    @property
    def bytes(self) -> int:
        """The total size of the backup's files."""
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> str:
        """Return the manifest as JSON. Like older manifests, the text has no `unproven` if there is no reason."""
        document = {"version": VERSION, **asdict(self)}
        if self.unproven is None:
            del document["unproven"]
        return json.dumps(document, indent=2) + "\n"


def parse(text: str | bytes, where: object) -> Manifest:
    """Parse a manifest.

    If the manifest is invalid, raise FailedError with the first problem. `where` names the manifest in the error.
    """
    try:
        manifest = records.loads(Manifest, text, version=VERSION)
    except RecordError as error:
        raise FailedError(f"{where}: {str(error)[:MOST_TOLD]}", next_step=_REMEDY) from None
    if fault := _inconsistency(manifest):
        raise FailedError(f"{where}: {fault}", next_step=_REMEDY)
    return manifest


def load(directory: Path) -> Manifest:
    """Read the manifest in a backup's directory. Raise FailedError if the manifest is missing or invalid."""
    path = directory / NAME
    try:
        with _opened(directory) as there:
            found = parse(there.read(NAME, LONGEST), path)
    except FileNotFoundError:
        raise FailedError(f"{path} is missing", next_step=_REMEDY) from None
    if found.id != directory.name.removesuffix(UNFINISHED):
        raise FailedError(f"{path} is the manifest of another backup, {found.id}", next_step=_REMEDY)
    return found


def save(directory: Path, manifest: Manifest) -> None:
    """Write a manifest, parts of which come from containers. Raise FailedError if `load` would refuse the manifest."""
    text = manifest.to_json()
    parse(text, directory / NAME)
    with _opened(directory) as there:
        there.write(NAME, text.encode())


def every(backups: Path) -> list[Manifest]:
    """Return all valid manifests of the backups in a directory, oldest first."""
    return in_order(found for found in map(_loaded, _directories(backups)) if found)


def unreadable(backups: Path) -> list[str]:
    """Return a line for each directory that has the name of a backup, but no valid manifest."""
    return [fault for fault in map(_fault, _directories(backups)) if fault]


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Sort manifests by number, oldest first.

    If two droplets used the same number after a restore, the time decides.
    """
    return sorted(manifests, key=lambda one: (one.sequence, one.time, one.id))


def describe(file: Path) -> File:
    """Sync a file to the disk, and return its size and checksum. Raise FailedError if the file is empty."""
    with _opened(file.parent) as there:
        return _described(there, file.name, MOST)


def differing(directory: Path, manifest: Manifest) -> list[str]:
    """Return a line for each file that differs from the manifest, and for each file that the manifest does not name."""
    try:
        with _opened(directory) as there:
            # If `save` was killed, the file manifest.json.new remains.
            known = {*manifest.files, NAME, f"{NAME}.new"}
            unnamed = [name for name in there.names() if name not in known]
            faults = [_difference(there, name, told) for name, told in manifest.files.items()]
    except FileNotFoundError:
        return [f"{name} is missing" for name in manifest.files]
    more = [f"and {len(unnamed) - SHOWN} more"] if len(unnamed) > SHOWN else []
    lines = [f"{name!a} is not named in the manifest" for name in unnamed[:SHOWN]] + more
    return [*filter(None, faults), *lines]


UNFINISHED = ".partial"
SHOWN = 5
_REMEDY = "sudo stackctl backup, then remove the invalid backup"


def _directories(backups: Path) -> list[Path]:
    return sorted(path for path in backups.glob("*") if ID.fullmatch(path.name))


def _opened(directory: Path) -> AbstractContextManager[Directory]:
    return openat.directory(directory.parent, directory.name)


def _described(there: Directory, name: str, most: int) -> File:
    size = there.size(name)
    if not size:
        raise FailedError(
            f"{name} is empty",
            next_step="see the log of the service that wrote the file (sudo stackctl logs postgres|redis)",
        )
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
            return f"{name} has {size} bytes, but the manifest says {told.bytes}"
        if _described(there, name, told.bytes).sha256 != told.sha256:
            return f"{name} was changed since it was written (its SHA-256 differs)"
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
    faults = (
        ["the backup is marked both as verified and as unproven"] if manifest.verified and manifest.unproven else []
    )
    whole = {DUMP, GLOBALS, STATE, *([RDB] if manifest.redis else [])}
    faults += [f"`files` lacks {name}" for name in sorted(whole - manifest.files.keys())]
    faults += [f"`files` lists {name}, which is not part of a backup" for name in sorted(manifest.files.keys() - whole)]
    return ", ".join(faults)[:MOST_TOLD]
