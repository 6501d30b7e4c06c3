"""Docker Compose, asked in one way: pure builders of arguments and environments. No value is ever an argument."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from . import machine
from .config import Config
from .state import Release

NEITHER_PULL_NOR_BUILD = ("--no-build", "--pull", "never")


def compose(project: str, file: Path, *arguments: str) -> list[str]:
    """`docker compose` for one project and file, with no .env that might lie beside it."""
    fixed = ["--ansi", "never", "--env-file", "/dev/null", "--project-name", project, "--file", str(file)]
    return ["docker", "compose", *fixed, *arguments]


def up(project: str, file: Path) -> list[str]:
    """Bring up what the file declares; containers that differ from it are made anew."""
    return compose(project, file, "up", "--detach", *NEITHER_PULL_NOR_BUILD)


def resume(project: str, file: Path) -> list[str]:
    """Start what there is, make what is missing, and recreate nothing."""
    return compose(project, file, "up", "--detach", "--no-recreate", *NEITHER_PULL_NOR_BUILD)


def migrate(project: str, file: Path, name: str) -> list[str]:
    """The migrations, in a one-shot container of this name: it outlives a killed client, and must be found again."""
    return compose(project, file, "run", "--rm", "--no-deps", "-T", "--name", name, "migrate")


def stack_sha256(app_yaml: bytes, environment: bytes, image: str) -> str:
    """What a container of the app was made from, as one hash: the Compose file, the canonical environment, the digest.

    Each part is hashed by itself first, so that no byte can move from one to the next unseen.
    """
    parts = [hashlib.sha256(part).digest() for part in (app_yaml, environment, image.encode())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def app_environment(
    config: Config, colour: str, release: Release, environment: Mapping[str, str], sha256: str
) -> dict[str, str]:
    """The whole process environment of a `docker compose` for the app: app.yaml takes the values from it by name."""
    return {
        **machine.ENVIRONMENT,
        **environment,
        "STACK_IMAGE": release.image,
        "STACK_COLOUR": colour,
        "STACK_ADDRESS": config.colours[colour],
        "STACK_SHA256": sha256,
        "STACK_RELEASE": release.id,
    }
