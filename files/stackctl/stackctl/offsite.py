"""Backups off the droplet."""

from pathlib import Path

from .manifest import Manifest
from .stack import Stack


def configured(_stack: Stack) -> bool:
    return False


def upload(_stack: Stack, _manifest: Manifest, _directory: Path) -> str:
    """The id of its snapshot there. Raises FailedError."""
    raise NotImplementedError


def fetch(_stack: Stack, _backup_id: str, _directory: Path) -> None:
    """Its files, into a directory that is there. Raises FailedError."""
    raise NotImplementedError


def available(_stack: Stack) -> list[Manifest]:
    """What lies there. Raises FailedError."""
    raise NotImplementedError
