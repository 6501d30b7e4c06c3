"""The record of a restore that has closed the bot, and not come to its end: what boot, status and a release go by."""

from dataclasses import dataclass
from pathlib import Path

from stackctl.app.state import Revision
from stackctl.core import durable, records
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError

DATABASE = "_restoring"
"""Ends the name of a database while it is restored, and of no other."""


@dataclass(frozen=True)
class Record:
    id: str
    """The backup's."""
    token: str
    """The run that began it. The database that it restored says so, and is known by it after a kill."""
    maintenance: bool
    """Whether nginx turned everybody away already before it."""
    revisions: tuple[Revision, ...] = ()
    """Of the restored schema, once it is known."""
    placed: bool = False
    """All of the data is in its place: what is left is to start the bot."""

    @property
    def remedy(self) -> str:
        if self.placed:
            return f"the data of {self.id} is in its place, and nobody let in yet: sudo stackctl restore {self.id} does"
        return f"the restore of {self.id} was interrupted: sudo stackctl restore {self.id} finishes it"


def load(paths: Paths) -> Record | None:
    """None when there is none under way."""
    try:
        return records.loads(Record, paths.restoring.read_bytes())
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise FailedError(
            f"{paths.restoring} can't be read ({error}): remove it, then restore again (stackctl backups)"
        ) from None


def save(paths: Paths, record: Record) -> None:
    durable.write(paths.restoring, records.dumps(record))


def remove(path: Path) -> None:
    """It has come to its end, or to none at all."""
    if path.exists():
        durable.remove(path)
