"""The marker of an unfinished restore that has closed the bot.

`boot`, `status` and `release` check the marker first.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stackctl.app.state import Revision
from stackctl.core import durable, records
from stackctl.core.errors import FailedError
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError

DATABASE = "_restoring"
"""The suffix of a database during a restore. No other name has this suffix."""


@dataclass(frozen=True)
class Record:
    """The content of the marker of an unfinished restore."""

    id: str
    """The ID of the backup."""
    token: str
    """The ID of the run that began the restore. A later run finds this ID in the restored database's comment."""
    maintenance: bool
    """Whether maintenance was on before the restore."""
    revisions: tuple[Revision, ...] = ()
    """The revisions of the restored schema, once known."""
    placed: bool = False
    """Whether all data is in place, so that only the start of the bot is left."""

    @property
    def remedy(self) -> str:
        if self.placed:
            return (
                f"the data of {self.id} is in place, but the bot is still closed. Next: sudo stackctl restore {self.id}"
            )
        return (
            f"the restore of {self.id} was interrupted. "
            f"Next: sudo stackctl restore {self.id}, which finishes the restore"
        )


def load(paths: Paths) -> Record | None:
    """Return the marker of the unfinished restore, or None if there is no unfinished restore."""
    try:
        return records.loads(Record, paths.restoring.read_bytes())
    except FileNotFoundError:
        return None
    except RecordError as error:
        raise FailedError(
            f"{paths.restoring} can't be read ({error})",
            next_step="remove the file, then restore again (stackctl list-backups)",
        ) from None


def problem(paths: Paths) -> str:
    """Return the problem that an unfinished restore or an unreadable marker causes, or "" if there is no marker."""
    try:
        half = load(paths)
    except FailedError as error:
        return str(error)
    return half.remedy if half else ""


def closing(paths: Paths) -> str:
    """Return the problem because of which the app must not start, or "" if the app may start.

    The app may start if all restored data is in place. An unreadable marker does not say where the data is.
    """
    with suppress(FailedError):
        half = load(paths)
        if half is None or half.placed:
            return ""
    return problem(paths)


def save(paths: Paths, record: Record) -> None:
    durable.write(paths.restoring, records.dumps(record))


def remove(path: Path) -> None:
    """Remove the marker of the unfinished restore, if there is one."""
    if path.exists():
        durable.remove(path)
