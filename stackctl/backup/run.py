"""The data that the steps of one backup share."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from stackctl.app.stack import Stack
from stackctl.backup.manifest import Manifest, Reason
from stackctl.core.config import Data
from stackctl.services.postgres import Postgres


@dataclass
class BackupRun:
    """A backup in progress."""

    stack: Stack
    data: Data
    id: str
    reason: Reason
    ends: ExitStack
    """The contexts to close at the end of the run, even if the run fails."""
    directory: Path = Path()
    """The directory ID.partial."""
    made: list[Manifest] = field(default_factory=list)
    """Earlier backups on this droplet."""
    there: list[Manifest] = field(default_factory=list)
    """Backups off the droplet, if the storage was read."""
    manifest: Manifest = field(init=False)
    """The manifest of this backup, as far as it is known."""

    @property
    def postgres(self) -> Postgres:
        return Postgres(self.stack.docker, self.stack.paths, self.data)

    @property
    def whole(self) -> Path:
        """The directory that the finished backup will have."""
        return self.stack.paths.backup(self.id)
