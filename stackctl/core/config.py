"""Defines /etc/APP/stackctl.json, the configuration of stackctl.

A converge writes the file, and stackctl reads the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from stackctl.core import instance, records
from stackctl.core.errors import RefusedError
from stackctl.core.paths import COLOURS, Paths
from stackctl.core.records import Positive, RecordError, Rule, Text

VERSION = 1
UrlPath = Annotated[str, Rule(lambda path: path.startswith("/"), "a path that begins with /")]


@dataclass(frozen=True)
class Certificate:
    """The certificate that the site declares for nginx."""

    domain: Text
    server: Text
    """URL of the ACME directory."""
    email: Text


@dataclass(frozen=True)
class Data:
    """The PostgreSQL server that runs on this host."""

    database: Text
    owner: Text
    """The role that owns the database. Each login role is a member of this role, and is named OWNER_<8 hex digits>."""
    major: Positive
    """The declared major version of PostgreSQL."""
    backup_memory_mib: Positive
    """Memory that a throwaway container may use while it verifies a backup."""
    root: UrlPath
    """Directory that holds the data of PostgreSQL and Redis."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The declared configuration. All durations are in seconds."""

    app: Text
    environment: Text
    """lab, staging or production."""
    operator: Text
    """Login whose SSH connection confirms a change on trial."""
    repository: Text
    colours: Annotated[
        Mapping[str, Text],
        Rule(lambda addresses: addresses.keys() == {*COLOURS}, "an address for blue and one for green"),
    ]
    """Fixed address of each colour on the app's network."""
    healthy_timeout: Positive
    migrate_timeout: Positive
    stop_grace: Positive
    worker_grace: Positive
    watch: Positive
    """How long the old colour keeps running after the flip."""
    connections: Positive
    """The most connections to PostgreSQL that one release opens: web container and worker together."""
    migrate: bool
    """Whether the image has the commands `migrate` and `schema`."""
    worker: bool
    """Whether the image has a command `worker`."""
    ready_path: UrlPath
    version_path: UrlPath | None
    """None if the image reports no version, in a label or over HTTP."""
    webhook_path: UrlPath | None
    """None if the app does not use Telegram."""
    public_paths: tuple[UrlPath, ...] = ()
    """Paths that anyone may request, besides the webhook. A path ending in / is a prefix. Old files lack this key."""
    certificate: Certificate | None
    data: Data | None
    isolated: bool
    """Whether the droplet does nothing that the outside world notices (docs/reference/restore.md)."""
    instance_id: Annotated[str, instance.FORMAT] | None = None
    """The instance ID of the converged droplet, or None if unknown (instance.py). Old files lack this key."""

    @property
    def works(self) -> bool:
        """Whether the app's worker must run on this droplet."""
        return self.worker and not self.isolated

    @property
    def tells_telegram(self) -> bool:
        """Whether stackctl checks and sets the webhook at Telegram."""
        return self.webhook_path is not None and not self.isolated


def load(paths: Paths) -> Config:
    """Read the configuration. A copy is isolated, whatever the file says about the original droplet.

    Raises RefusedError if the file is missing or invalid.
    """
    try:
        config = records.loads(Config, paths.config.read_bytes(), version=VERSION)
    except FileNotFoundError:
        raise RefusedError(f"{paths.config} is missing", next_step="make site") from None
    except RecordError as error:
        raise RefusedError(f"{paths.config}: {error}", next_step="make site") from None
    if config.app != paths.app:
        expected = f"app must be {paths.app!r}, the name that this stackctl was built for"
        raise RefusedError(f"{paths.config}: {expected}", next_step="make site")
    return replace(config, isolated=config.isolated or instance.is_copy(config.instance_id, paths))
