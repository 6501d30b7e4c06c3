"""Reads the settings of the off-site storage, and the result of the last probe of the droplet's key."""

from dataclasses import dataclass, field

from stackctl.app.stack import Stack
from stackctl.core import records, redact
from stackctl.core.errors import RefusedError
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError
from stackctl.services import s3

NOWHERE = (
    "no backup is sent off this droplet. Next: set offsite_repository in group_data (docs/how-to/offsite-backups.md)"
)


@dataclass(frozen=True)
class OffsiteConfig:
    """The settings of the off-site storage. A converge writes these settings to `paths.offsite`."""

    repository: str
    append_only: bool
    """Whether the operator declares that the key can only add objects."""
    read_only: bool
    """Whether this droplet is isolated, so that it must not write to the storage."""
    key_id: str = field(repr=False)
    key_secret: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def key(self) -> s3.Key:
        return s3.Key(self.key_id, self.key_secret)

    @property
    def secrets(self) -> list[str]:
        return redact.spellings([self.key_id, self.key_secret, self.password])


@dataclass(frozen=True)
class KeyPermissions:
    """The result of a probe: whether the droplet's key was able to delete or overwrite an existing object."""

    at: str
    deletes: bool
    overwrites: bool

    @property
    def append_only(self) -> bool:
        return not (self.deletes or self.overwrites)

    def __str__(self) -> str:
        if self.append_only:
            return "the droplet's key can only add objects"
        can = [word for word, may in (("delete", self.deletes), ("overwrite", self.overwrites)) if may]
        return f"the droplet's key can {' and '.join(can)} existing objects"


def configured(stack: Stack) -> bool:
    return stack.paths.offsite.exists()


def load(paths: Paths) -> OffsiteConfig:
    """Read the settings of the off-site storage. Raise RefusedError if the file is missing or invalid."""
    try:
        return records.loads(OffsiteConfig, paths.offsite.read_bytes())
    except FileNotFoundError:
        raise RefusedError(f"{NOWHERE}, then make site") from None
    except RecordError as error:
        raise RefusedError(f"{paths.offsite}: {error}", next_step="make site") from None


def permissions(paths: Paths) -> KeyPermissions | None:
    """Return the result of the last probe, or None if there was no probe."""
    try:
        return records.loads(KeyPermissions, paths.offsite_permissions.read_bytes())
    except (OSError, RecordError):
        return None


def problems(paths: Paths, where: str) -> list[str]:
    """Return a line for each problem with the off-site storage.

    `where` is the environment. Only production needs storage.
    """
    if not paths.offsite.exists():
        return [NOWHERE] if where == "production" else []
    found = permissions(paths)
    if found and not found.append_only and load(paths).append_only:
        return [
            f"{found}, although offsite_append_only is set. Next: use a key that can only add objects "
            "(docs/how-to/offsite-backups.md)"
        ]
    return []
