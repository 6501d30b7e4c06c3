"""/etc/APP/stackctl.json: what the deploys tell stackctl. Checked whole before it is used."""

import json
from dataclasses import dataclass
from typing import Any

from .errors import RefusedError
from .paths import COLOURS, Paths


@dataclass(frozen=True)
class Certificate:
    """The certificate that nginx is to serve."""

    domain: str
    server: str
    """The ACME directory's URL."""
    email: str


@dataclass(frozen=True)
class Config:
    """Seconds throughout."""

    app: str
    repository: str
    port: int
    colours: dict[str, str]
    """The fixed address of each colour on the app's network."""
    healthy_timeout: int
    migrate_timeout: int
    stop_grace: int
    certificate: Certificate | None
    data: bool
    """PostgreSQL and Redis run on this host."""
    migrate: bool
    """The image has a command `migrate`."""


_TEXT = ("app", "repository")
_COUNTS = ("port", "healthy_timeout", "migrate_timeout", "stop_grace")
_REQUIRED = {"version", "colours", "certificate", "data", "migrate", *_TEXT, *_COUNTS}


def load(paths: Paths) -> Config:
    try:
        document = json.loads(paths.config.read_text())
    except FileNotFoundError:
        raise RefusedError(f"{paths.config} is missing: converge the site (make site)") from None
    except ValueError as error:
        raise RefusedError(f"{paths.config} is no JSON ({error}): converge the site (make site)") from None
    fault = _problem(document, paths.app)
    if fault:
        raise RefusedError(f"{paths.config}: {fault}: converge the site (make site)")
    certificate = document.pop("certificate")
    del document["version"]
    return Config(certificate=Certificate(**certificate) if certificate else None, **document)


def _problem(document: Any, app: str) -> str | None:
    """The first thing that is wrong with it, by the key's name, or None."""
    if not isinstance(document, dict):
        return "must be an object"
    if document.get("version") != 1:
        return f"version must be 1, is {document.get('version')!r}"
    missing, unknown = _REQUIRED - document.keys(), document.keys() - _REQUIRED
    if missing or unknown:
        return ", ".join(
            [f"{key} is missing" for key in sorted(missing)] + [f"{key} is unknown" for key in sorted(unknown)]
        )
    checks = [
        *((key, isinstance(document[key], str) and document[key], "text") for key in _TEXT),
        *((key, type(document[key]) is int and document[key] > 0, "a whole number above 0") for key in _COUNTS),
        *((key, isinstance(document[key], bool), "true or false") for key in ("data", "migrate")),
        ("app", document["app"] == app, f"{app!r}, the name this stackctl was built for"),
        ("colours", _texts(document["colours"], set(COLOURS)), "an address for blue and one for green"),
        (
            "certificate",
            document["certificate"] is None or _texts(document["certificate"], {"domain", "server", "email"}),
            "null, or domain, server and email as text",
        ),
    ]
    return next((f"{key} must be {what}" for key, good, what in checks if not good), None)


def _texts(document: Any, keys: set[str]) -> bool:
    return isinstance(document, dict) and document.keys() == keys and all(isinstance(v, str) for v in document.values())
