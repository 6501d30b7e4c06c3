"""The image's commands. Exit status: 0 done, 1 failed, 2 wrong arguments or configuration."""

import argparse
import gc
import json
import os
import signal
import sys

import structlog

from marketplace_bot import logs
from marketplace_bot.settings import EnvironmentProblem, Settings, read_settings

log = structlog.get_logger(__name__)


def main() -> int:
    """Run the command of the command line and return its exit status."""
    command = _parser().parse_args().command
    try:
        settings = read_settings(os.environ)
    except EnvironmentProblem as problem:
        print(f"marketplace-bot cannot start: {problem}", file=sys.stderr)
        return 2
    logs.configure(settings)
    # Without a handler, SIGTERM would end this process at once, or, as PID 1, do nothing. After a KeyboardInterrupt,
    # psycopg cancels the statement for which it waits.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return {"web": _web, "worker": _worker, "migrate": _migrate, "schema": _schema}[command](settings)
    except KeyboardInterrupt:
        log.warning("stopped before it was done", command=command)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marketplace_bot", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("web", help="serve the webhook and the probes on port 8080 until SIGTERM")
    commands.add_parser("worker", help="do the jobs in the database, as the only one, until SIGTERM")
    commands.add_parser("migrate", help="apply the pending migrations, once even if several processes ask")
    report = commands.add_parser("schema", help="print the current, newest and pending revisions")
    report.add_argument("--json", action="store_true", required=True, help="print JSON, the only format")
    return parser


# Each command imports only what it needs, because a release waits for every import. aiogram alone takes seconds.


def _web(settings: Settings) -> int:
    gc.disable()  # Imported objects stay, and a search for garbage among them would take a tenth of the import's time.
    from marketplace_bot.aiogram_import import import_aiogram  # noqa: PLC0415

    import_aiogram()
    from marketplace_bot import web  # noqa: PLC0415

    web.serve(settings)
    return 0


def _worker(settings: Settings) -> int:
    from psycopg import Error  # noqa: PLC0415

    from marketplace_bot import worker  # noqa: PLC0415

    try:
        worker.serve(settings)
    except Error as error:
        log.error("the database failed the worker: it has to start again", error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _migrate(settings: Settings) -> int:
    from marketplace_bot import schema  # noqa: PLC0415

    try:
        report = schema.migrate(settings.database_url)
    except Exception as error:
        log.error("migration failed, its revision is undone: mend the cause, migrate again", **logs.cause(error))
        return 1
    log.info("migrated", **report)
    return 0


def _schema(settings: Settings) -> int:
    from marketplace_bot import schema  # noqa: PLC0415

    try:
        report = schema.read(settings.database_url)
    except Exception as error:
        log.error("the schema cannot be read", **logs.cause(error))
        return 1
    print(json.dumps(report))
    return 0
