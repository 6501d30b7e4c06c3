"""Docker Compose, asked in one way: pure builders of arguments and environments. No value is ever an argument."""

import hashlib
from pathlib import Path

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


def one_shot(project: str, file: Path, name: str, *command: str) -> list[str]:
    """A command of the image in a one-shot container, named, since it outlives a killed client and must be found again.

    The service is `migrate`, which has no fixed address that the colour's own container may hold.
    """
    return compose(project, file, "run", "--rm", "--no-deps", "-T", "--name", name, "migrate", *command)


def stack_sha256(compose_files: bytes, environment: bytes, image: str) -> str:
    """What the app's containers were made from, as one hash: Compose files, canonical environment, digest.

    Each part is hashed by itself first, so that no byte can move from one to the next unseen.
    """
    parts = [hashlib.sha256(part).digest() for part in (compose_files, environment, image.encode())]
    return hashlib.sha256(b"".join(parts)).hexdigest()
