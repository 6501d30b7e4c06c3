"""Builds command lines for Docker Compose. No argument contains a value of the app environment."""

import hashlib
from pathlib import Path

NEITHER_PULL_NOR_BUILD = ("--no-build", "--pull", "never")


def compose(project: str, file: Path, *arguments: str) -> list[str]:
    """Build a `docker compose` command for one project and file. A .env file is ignored."""
    fixed = ["--ansi", "never", "--env-file", "/dev/null", "--project-name", project, "--file", str(file)]
    return ["docker", "compose", *fixed, *arguments]


def up(project: str, file: Path) -> list[str]:
    """Build the command that starts the file's containers, and recreates containers that differ from the file."""
    return compose(project, file, "up", "--detach", *NEITHER_PULL_NOR_BUILD)


def resume(project: str, file: Path) -> list[str]:
    """Build the command that starts existing containers and creates missing containers, but recreates no container."""
    return compose(project, file, "up", "--detach", "--no-recreate", *NEITHER_PULL_NOR_BUILD)


def one_shot(project: str, file: Path, name: str, *command: str) -> list[str]:
    """Build the command that runs a program of the image in a one-shot container.

    The container has a known name, so that it can be found and removed after a kill of the Docker client. The container
    belongs to the service `migrate`, which has no fixed address, because the colour's address may be in use.
    """
    return compose(project, file, "run", "--rm", "--no-deps", "-T", "--name", name, "migrate", *command)


def stack_sha256(compose_files: bytes, environment: bytes, image: str) -> str:
    """Return a hash of the sources of the app's containers: Compose files, canonical app environment and image digest.

    Each part is hashed first, so that moving a byte from one part to the next changes the result.
    """
    parts = [hashlib.sha256(part).digest() for part in (compose_files, environment, image.encode())]
    return hashlib.sha256(b"".join(parts)).hexdigest()
