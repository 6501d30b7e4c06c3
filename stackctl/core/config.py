"""/etc/APP/stackctl.json: what the deploys tell stackctl. Checked whole before it is used."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stackctl.core.errors import RefusedError
from stackctl.core.paths import COLOURS, Paths


@dataclass(frozen=True)
class Certificate:
    """The certificate that nginx is to serve."""

    domain: str
    server: str
    """The ACME directory's URL."""
    email: str


@dataclass(frozen=True)
class Data:
    """PostgreSQL, where it runs on this host."""

    database: str
    owner: str
    """The role that owns it; each login role is a member, named OWNER_<8 hex>."""
    major: int
    """The version that is declared."""
    backup_memory_mib: int
    """What a backup may use while it is restored for proof."""
    root: str
    """The directory that PostgreSQL's and Redis's lie in."""


@dataclass(frozen=True)
class Config:
    """Seconds throughout."""

    environment: str
    """lab, staging or production."""
    operator: str
    """Whose login confirms what is on trial."""
    repository: str
    colours: dict[str, str]
    """The fixed address of each colour on the app's network."""
    healthy_timeout: int
    migrate_timeout: int
    stop_grace: int
    worker_grace: int
    watch: int
    """How long the old colour stays warm after the flip."""
    connections: int
    """What one release, web and worker, opens of PostgreSQL's at most."""
    migrate: bool
    """The image has the commands `migrate` and `schema`."""
    worker: bool
    """The image has a command `worker`."""
    ready_path: str
    version_path: str | None
    """None: the image tells no version, neither by its label nor over HTTP."""
    webhook_path: str | None
    """None: the app has nothing to do with Telegram."""
    certificate: Certificate | None
    data: Data | None
    isolated: bool
    """A copy, which does nothing that anybody outside hears of (docs/reference/restore.md)."""
    public_paths: tuple[str, ...] = ()
    """What else everybody may ask for, besides Telegram's path. A path that ends in / is a prefix."""

    @property
    def works(self) -> bool:
        """There is to be a worker here."""
        return self.worker and not self.isolated

    @property
    def tells_telegram(self) -> bool:
        """Telegram is asked, and told where updates go."""
        return self.webhook_path is not None and not self.isolated


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
    certificate, data = document.pop("certificate"), document.pop("data")
    del document["version"], document["app"]
    document["public_paths"] = tuple(document.get("public_paths", ()))
    return Config(
        certificate=Certificate(**certificate) if certificate else None,
        data=Data(**data) if data else None,
        **document,
    )


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _path_or_null(value: Any) -> bool:
    return value is None or _path(value)


def _paths(value: Any) -> bool:
    return isinstance(value, list) and all(map(_path, value))


def _colours(value: Any) -> bool:
    return _object(value, dict.fromkeys(COLOURS, _text))


def _certificate(value: Any) -> bool:
    return value is None or _object(value, dict.fromkeys(("domain", "server", "email"), _text))


def _data(value: Any) -> bool:
    return value is None or _object(
        value, {"database": _text, "owner": _text, "major": _count, "backup_memory_mib": _count, "root": _path}
    )


def _object(value: Any, fields: dict[str, Callable[[Any], bool]]) -> bool:
    return isinstance(value, dict) and value.keys() == fields.keys() and all(fields[key](value[key]) for key in fields)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "app": (_text, "text"),
    "environment": (_text, "text"),
    "operator": (_text, "text"),
    "repository": (_text, "text"),
    **dict.fromkeys(
        ("healthy_timeout", "migrate_timeout", "stop_grace", "worker_grace", "watch", "connections"),
        (_count, "a whole number above 0"),
    ),
    **dict.fromkeys(("migrate", "worker", "isolated"), (_flag, "true or false")),
    "colours": (_colours, "an address for blue and one for green"),
    "ready_path": (_path, "a path that begins with /"),
    **dict.fromkeys(("version_path", "webhook_path"), (_path_or_null, "null or a path that begins with /")),
    "certificate": (_certificate, "null, or domain, server and email as text"),
    "public_paths": (_paths, "a list of paths that begin with /"),
    "data": (_data, "null, or database, owner and root as text, major and backup_memory_mib as numbers"),
}


_OPTIONAL = {"public_paths"}
"""A stackctl.json of before this was declared doesn't have it."""


def _problem(document: Any, app: str) -> str | None:
    """The first thing that is wrong with it, by the key's name, or None."""
    if not isinstance(document, dict):
        return "must be an object"
    if document.get("version") != 1:
        return f"version must be 1, is {document.get('version')!r}"
    known = _RULES.keys() | {"version"}
    faults = [f"{key} is missing" for key in sorted(known - document.keys() - _OPTIONAL)]
    faults += [f"{key} is unknown" for key in sorted(document.keys() - known)]
    faults += [
        f"{key} must be {what}"
        for key, (good, what) in _RULES.items()
        if not faults and key in document and not good(document[key])
    ]
    if not faults and document["app"] != app:
        faults = [f"app must be {app!r}, the name this stackctl was built for"]
    return ", ".join(faults) or None
