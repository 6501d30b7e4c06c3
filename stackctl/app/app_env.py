"""Handles the app environment: the canonical form, the hash, the checks, and the variables for Compose."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stackctl.app.state import Release
from stackctl.core import durable, program, redact
from stackctl.core.errors import RefusedError, StackError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Refuse names that affect docker, Compose or the dynamic loader, because docker's process gets the app environment.
RESERVED = re.compile(r"(COMPOSE|DOCKER|BUILDKIT|BUILDX|STACK|LD)_.*|PATH|HOME")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
# execve(2) allows 32 pages (MAX_ARG_STRLEN) for one variable, NAME=value with the zero byte at the end.
LONGEST = 32 * 4096
SECRET = "TELEGRAM_WEBHOOK_SECRET"  # noqa: S105 - names of variables, both
PREVIOUS_SECRET = "TELEGRAM_WEBHOOK_SECRET_PREVIOUS"  # noqa: S105


def canonical(environment: Mapping[str, str]) -> bytes:
    """Return the canonical form: compact JSON in UTF-8, names sorted, a newline at the end."""
    text = json.dumps(dict(environment), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def env_sha256(environment: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical(environment)).hexdigest()


def load(path: Path) -> dict[str, str]:
    """Read an app environment from a file, and check the variables.

    An error names a variable, but never shows the value.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RefusedError(f"{path} is missing", next_step="converge the site (make site)") from None
    except ValueError:
        raise RefusedError(f"{path} is not JSON", next_step="converge the site (make site)") from None
    fault = problem(document)
    if fault:
        raise RefusedError(f"{path}: {fault}")
    return dict(document)


def save(path: Path, environment: Mapping[str, str]) -> None:
    durable.write(path, canonical(environment))


def differing(path: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the variables that differ from the app environment in the file `path`. Return [] if it is unreadable."""
    try:
        former = load(path)
    except StackError:
        return []
    return sorted(name for name in former.keys() | environment.keys() if former.get(name) != environment.get(name))


def problem(document: object) -> str | None:
    """Return why the document cannot be an app environment, or None."""
    if not isinstance(document, dict):
        return "the environment must be an object of names and values"
    for name, value in document.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return f"{name!r} is not a valid name of an environment variable"
        if RESERVED.fullmatch(name):
            return f"{name} would configure docker instead of the app. Next: rename this variable"
        if fault := _fault_of_value(name, value):
            return fault
    return None


def _fault_of_value(name: str, value: object) -> str | None:
    if not isinstance(value, str):
        return f"{name} must be text"
    if NO_TEXT.search(value):
        return f"{name} has characters that an environment cannot contain"
    if len(f"{name}={value}\0".encode()) > LONGEST:
        return (
            f"{name} is too long, because name and value may have at most {LONGEST} bytes together. Next: shorten "
            "the value"
        )
    return None


def secrets_in(directory: Path) -> list[str]:
    """Return every spelling of every value in the environments of a directory, so that `redact.mask` can hide them."""
    values: set[str] = set()
    for path in directory.glob("*.json"):
        with suppress(StackError, OSError):
            values |= set(load(path).values())
    return redact.spellings(values)


def app_environment(
    release: Release, environment: Mapping[str, str], sha256: str, address: str | None, previous_secret: str | None
) -> dict[str, str]:
    """Return the whole environment of a `docker compose` process for the app.

    The Compose file refers to the values by variable name.

    `address` is the colour's address, or None for the worker. `previous_secret` is the webhook secret that Telegram
    still sends, or None if Telegram already sends the release's own secret. The previous secret is not part of the
    release, because Telegram soon stops sending that secret.
    """
    return {
        **program.ENVIRONMENT,
        **environment,
        **({PREVIOUS_SECRET: previous_secret} if previous_secret else {}),
        **({"STACK_ADDRESS": address} if address else {}),
        "STACK_IMAGE": release.image,
        "STACK_SHA256": sha256,
        "STACK_RELEASE": release.id,
    }
