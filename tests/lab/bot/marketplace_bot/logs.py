"""Logs messages of our code and of libraries on standard output, one JSON object per line, with every secret masked."""

import json
import logging
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from structlog.typing import EventDict, WrappedLogger

from marketplace_bot.settings import Settings


def configure(settings: Settings) -> None:
    """Send structlog and the standard library's logging to standard output. Libraries log only warnings and errors."""
    every_event: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *every_event,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=every_event,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                JSONWithoutSecrets(settings.secrets),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)  # noqa: FBT003 -- the standard library's own signature
    logging.getLogger("marketplace_bot").setLevel(settings.log_level)


def cause(error: Exception) -> dict[str, Any]:
    """Return the fields that explain an error, which are its message and traceback.

    Omit the traceback of a database's error.
    """
    traceback = None if isinstance(error, SQLAlchemyError) else error
    return {"error": f"{type(error).__name__}: {error}", "exc_info": traceback}


class JSONWithoutSecrets:
    """A renderer of events as JSON, without secrets. Exceptions show Telegram's URLs, which contain the token."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [json.dumps(secret)[1:-1] for secret in secrets if secret]

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        """Return the line in ASCII, in which "***" replaces every secret."""
        line = json.dumps(event, default=str)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line
