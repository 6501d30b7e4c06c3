"""The database's current revision, the revision that this version needs, and the migration between the two."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import URL

log = structlog.get_logger(__name__)

# The lock's number may be any, as long as every version of the bot uses the same one.
_MIGRATING = 7_046_029_254_386_353_131


class Revision(TypedDict):
    """A step of the schema.

    An `expand` leaves older versions of the bot working. A `contract` breaks older versions, so no rollback may pass
    it.
    """

    revision: str
    kind: Literal["expand", "contract"]


class Report(TypedDict):
    """What `schema --json` prints. `current` is null in an empty database."""

    current: str | None
    head: str
    pending: list[Revision]


def revisions() -> list[Revision]:
    """Return every revision that this version knows, oldest first."""
    scripts = reversed(list(ScriptDirectory.from_config(_config()).walk_revisions()))
    return [Revision(revision=script.revision, kind=script.module.kind) for script in scripts]


def pending(known: Sequence[Revision], current: str | None) -> list[Revision]:
    """Return the revisions still to apply.

    If the database's revision is unknown, it comes from a newer version, and nothing is pending.
    """
    if current is None:
        return list(known)
    applied = [index for index, revision in enumerate(known, start=1) if revision["revision"] == current]
    return list(known[applied[0] :]) if applied else []


def current_revision(connection: Connection) -> str | None:
    """Return the database's revision, or None if it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def read(url: URL) -> Report:
    """Return the state of the database. Raise SQLAlchemyError if the database can't be reached."""
    with _connection(url) as connection:
        return _report(connection)


def migrate(url: URL) -> Report:
    """Apply the pending revisions, each in its own transaction, and return the state of the database.

    If another process migrates, wait for that process. A killed process releases the lock with its connection.
    """
    with _connection(url) as connection:
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATING})
        before = _report(connection)
        connection.commit()
        if before["pending"]:
            log.info("migrating", **before)
            command.upgrade(_config(connection), "head")
        return _report(connection)


def _report(connection: Connection) -> Report:
    known, current = revisions(), current_revision(connection)
    return Report(current=current, head=known[-1]["revision"], pending=pending(known, current))


def _connection(url: URL) -> Connection:
    options = {
        "connect_timeout": 5,
        "application_name": "marketplace-bot migrate",
        # If the live version uses a table, the migration waits only a few seconds for that table. Otherwise, the live
        # version's requests would queue behind the migration. A killed migration must not continue and hold its locks,
        # so the server checks that the client is still connected. libpq would ignore the caller's PGOPTIONS, so this
        # string ends with them. The last options take precedence.
        "options": f"-c lock_timeout=5s -c client_connection_check_interval=2s {os.environ.get('PGOPTIONS', '')}",
    }
    return create_engine(url, poolclass=NullPool, connect_args=options).connect()


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
