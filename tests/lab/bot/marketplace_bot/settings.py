"""Reads and checks the whole environment before anything starts. An error names the variable, never its value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

# The second secret is set while the first is being replaced.
WEBHOOK_SECRETS = ("TELEGRAM_WEBHOOK_SECRET", "TELEGRAM_WEBHOOK_SECRET_PREVIOUS")
REQUIRED = ("DATABASE_URL", "ENVIRONMENT", "REDIS_URL", "TELEGRAM_BOT_TOKEN", "TELEGRAM_WEBHOOK_SECRET")


class EnvironmentProblem(Exception):  # noqa: N818 -- it is a problem of the operator's, not an error of ours
    """A missing or malformed variable. The message is one line that names the variable and describes its form."""


@dataclass(frozen=True)
class Settings:
    """The bot's configuration. Every command checks all values, so `migrate` fails if `web` could not start."""

    environment: str
    log_level: str
    version: str
    telegram_api_url: str
    telegram_token: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)
    database_url: URL = field(repr=False)
    redis_url: str = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return every form in which a library might print a secret.

        The forms are the secret as given, and the secret decoded from its URL.
        """
        redis_password = urlsplit(self.redis_url).password or ""
        return (
            self.telegram_token,
            *self.webhook_secrets,
            self.database_url.password or "",
            self.database_url.render_as_string(hide_password=False),
            redis_password,
            unquote(redis_password),
        )


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`, or raise EnvironmentProblem."""
    missing = [name for name in REQUIRED if not environ.get(name)]
    if missing:
        raise EnvironmentProblem(f"missing or empty in the environment: {', '.join(missing)}")
    return Settings(
        environment=environ["ENVIRONMENT"],
        log_level=_matching(environ, "LOG_LEVEL", "DEBUG|INFO|WARNING|ERROR", default="INFO"),
        version=environ.get("APP_VERSION", "unknown"),
        telegram_api_url=_matching(environ, "TELEGRAM_API_URL", r"https?://\S+", default="https://api.telegram.org"),
        telegram_token=_matching(environ, "TELEGRAM_BOT_TOKEN", r"\d+:[\w-]+"),
        webhook_secrets=tuple(
            _matching(environ, name, r"[A-Za-z0-9_-]{1,256}") for name in WEBHOOK_SECRETS if environ.get(name)
        ),
        database_url=_database_url(_matching(environ, "DATABASE_URL", r"postgresql://\S+@\S+/\S+")),
        redis_url=_matching(environ, "REDIS_URL", r"redis://\S+"),
    )


def _matching(environ: Mapping[str, str], name: str, pattern: str, *, default: str = "") -> str:
    value = environ.get(name) or default
    if not re.fullmatch(pattern, value):
        raise EnvironmentProblem(f"{name} is malformed: it has to match {pattern}")
    return value


def _database_url(value: str) -> URL:
    try:
        return make_url(value).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise EnvironmentProblem("DATABASE_URL is malformed: percent-encode user and password") from None
