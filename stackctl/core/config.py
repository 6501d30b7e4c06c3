"""/etc/APP/stackctl.json: what the site declares to stackctl. The deploys write a Config, and stackctl reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from stackctl.core import records
from stackctl.core.errors import RefusedError
from stackctl.core.paths import COLOURS, Paths
from stackctl.core.records import Positive, RecordError, Rule, Text

VERSION = 1
UrlPath = Annotated[str, Rule(lambda path: path.startswith("/"), "a path that begins with /")]


@dataclass(frozen=True)
class Certificate:
    """The certificate that nginx is to serve."""

    domain: Text
    server: Text
    """URL of the ACME directory."""
    email: Text


@dataclass(frozen=True)
class Data:
    """The PostgreSQL that runs on this host."""

    database: Text
    owner: Text
    """Role that owns the database. Each login role is a member of it, and is named OWNER_<8 hex>."""
    major: Positive
    """The declared major version."""
    backup_memory_mib: Positive
    """Memory that a backup may use while it is restored to verify it."""
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
    """How long the old colour stays warm after the flip."""
    connections: Positive
    """Most connections that one release, web and worker, opens to PostgreSQL."""
    migrate: bool
    """The image has the commands `migrate` and `schema`."""
    worker: bool
    """The image has a command `worker`."""
    ready_path: UrlPath
    version_path: UrlPath | None
    """None: the image reports no version, neither in its label nor over HTTP."""
    webhook_path: UrlPath | None
    """None: the app does not use Telegram."""
    public_paths: tuple[UrlPath, ...] = ()
    """Paths that anyone may request, besides the webhook's. One that ends in / is a prefix. Old files lack the key."""
    certificate: Certificate | None
    data: Data | None
    isolated: bool
    """The droplet is a copy and does nothing that the outside notices (docs/reference/restore.md)."""

    @property
    def works(self) -> bool:
        """A worker is to run here."""
        return self.worker and not self.isolated

    @property
    def tells_telegram(self) -> bool:
        """Telegram is asked, and told where to send updates."""
        return self.webhook_path is not None and not self.isolated


def load(paths: Paths) -> Config:
    """Read the configuration. Raises RefusedError."""
    try:
        config = records.loads(Config, paths.config.read_bytes(), version=VERSION)
    except FileNotFoundError:
        raise RefusedError(f"{paths.config} is missing", next_step="make site") from None
    except RecordError as error:
        raise RefusedError(f"{paths.config}: {error}", next_step="make site") from None
    if config.app != paths.app:
        expected = f"app must be {paths.app!r}, the name that this stackctl was built for"
        raise RefusedError(f"{paths.config}: {expected}", next_step="make site")
    return config
