"""The data of one restore: the operator's request, and the values that the steps share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stackctl.app import state, unfinished_restore
from stackctl.app.stack import Stack
from stackctl.app.state import Revision
from stackctl.app.unfinished_restore import Record
from stackctl.backup import loading, manifest
from stackctl.backup.manifest import Manifest
from stackctl.core.config import Data
from stackctl.core.errors import RefusedError
from stackctl.services.postgres import Postgres, Server
from stackctl.services.redis import Directory

LOAD_TIMEOUT = 4 * 3600
SHOWN = 20
"""A list in the log is cut off after this many lines."""
DONE_BEFORE = "done before the interruption"
"""The message of a step that an earlier, interrupted run has done."""
FORMER = "_replaced"
"""The suffix to the name of the former live database, until that database is dropped."""


class Request(NamedTuple):
    """The operator's request."""

    backup: str
    """A backup ID, or `latest`."""
    from_offsite: bool = False
    to_database: str | None = None
    yes: str | None = None
    """The backup ID, repeated to confirm."""
    safety: bool = True
    snapshot: str | None = None
    """The ID of the off-site snapshot, if several snapshots have the same backup ID."""

    @property
    def words(self) -> list[str]:
        """The operator's request as command-line arguments."""
        flags = {"--from-offsite": self.from_offsite, "--no-safety": not self.safety}
        options = {"--to-database": self.to_database, "--yes": self.yes, "--snapshot": self.snapshot}
        given = [flag for flag, wanted in flags.items() if wanted]
        return [self.backup, *given, *(word for option, value in options.items() if value for word in (option, value))]


@dataclass
class RestoreRun:
    """A restore in progress."""

    stack: Stack
    asked: Request
    data: Data
    manifest: Manifest = field(init=False)
    record: Record | None = None
    """The marker of this restore. Either this run or an earlier, killed run has written the marker."""
    earlier: Record | None = None
    """The marker of an unfinished restore of another backup."""
    left_out: Sequence[str] = ()
    """One line for each part of the backup that the restored database lacks or has in another form."""
    revisions: tuple[Revision, ...] = ()
    """The revisions of the backup's schema, from the backup's state.json."""

    @property
    def directory(self) -> Path:
        return self.stack.paths.backup(self.manifest.id)

    @property
    def server(self) -> Server:
        return Postgres(self.stack.docker, self.stack.paths, self.data).server

    @property
    def load(self) -> loading.Load:
        dump, roles = (self.directory / name for name in (manifest.DUMP, manifest.GLOBALS))
        return loading.Load(self.server, self.restored, self.data.owner, dump, roles, LOAD_TIMEOUT)

    @property
    def target(self) -> str:
        return self.asked.to_database or self.data.database

    @property
    def restored(self) -> str:
        """The name of the restored database before the step `swap`."""
        return self.target + unfinished_restore.DATABASE

    @property
    def former(self) -> str:
        """The name of the former live database after the step `swap`."""
        return self.target + FORMER

    @property
    def mark(self) -> str:
        """The comment on the restored database. After a killed run, the next run finds the database by this comment."""
        id_, token = (self.record.id, self.record.token) if self.record else (self.manifest.id, self.stack.log.run)
        return f"restored from {id_} by {token}"

    @property
    def placed(self) -> bool:
        """Whether all restored data is live."""
        return self.record is not None and self.record.placed

    @property
    def committed(self) -> str:
        return "all data is restored" if self.placed else ""

    @property
    def serving(self) -> str:
        return self.stack.serving

    @property
    def remedy(self) -> str:
        asked = self.asked._replace(backup=self.record.id) if self.record else self.asked
        return " ".join(["sudo stackctl restore", *asked.words])

    @property
    def swapped(self) -> bool:
        """Whether the restored database is already the live database."""
        return self.record is not None and (self.placed or self.server.comment(self.target) == self.mark)

    @property
    def ready(self) -> bool:
        """Whether the restored database is complete, so that only the steps from `close` on are left."""
        return self.record is not None and (self.swapped or self.server.comment(self.restored) == self.mark)

    @property
    def redis(self) -> Directory:
        return Directory(Path(self.data.root) / "redis")


def forget_former(run: RestoreRun) -> None:
    """Delete the replaced database and the replaced Redis files."""
    run.server.drop(run.former)
    run.redis.forget_former()


def answer(stack: Stack) -> str:
    """Describe how nginx now answers a client."""
    if stack.config.isolated:
        return "clients get 503, because this droplet is isolated"
    if not state.load(stack.paths).release:
        return "clients get 503, because no release is live"
    return (
        "clients get 503, because maintenance is on"
        if stack.paths.maintenance.exists()
        else "clients reach the app again"
    )


def too_new(run: RestoreRun, revision: str | None) -> RefusedError:
    """Return the error for a backup whose schema the live release does not know."""
    live = state.load(run.stack.paths).release
    then = run.manifest.release
    known = f" ({live.tag} knows {live.schema})" if live else ""
    version = f"sudo stackctl release {then['tag']}" if then else "release the version that made the backup"
    return RefusedError(
        f"the schema {revision} of {run.manifest.id} is newer than the schema of the live release{known}",
        next_step=f"{version}, or restore with --to-database NAME",
    )
