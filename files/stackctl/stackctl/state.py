"""What the droplet remembers of its releases: the contract's STATE."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import durable
from .errors import FailedError
from .paths import COLOURS, Paths


@dataclass(frozen=True)
class Release:
    """An image with the environment it started with."""

    id: str
    """UTC time of its start, as 20251123T154100Z; names the environment's snapshot and our tag on the image."""
    tag: str
    image: str
    """repository@sha256:…"""
    env_sha256: str
    schema: str | None
    """The database's revision it migrated to, where it is known."""
    since: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class State:
    """`active` is what the symbolic link says, whatever was written."""

    active: str | None = None
    worker: Release | None = None
    maintenance: bool = False
    colours: dict[str, Release | None] = field(default_factory=lambda: dict.fromkeys(COLOURS))

    @property
    def release(self) -> Release | None:
        """The one that serves."""
        return self.colours[self.active] if self.active else None

    def with_colour(self, colour: str, release: Release | None) -> "State":
        return replace(self, colours={**self.colours, colour: release})

    def to_json(self) -> str:
        return json.dumps({"version": 1, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "State":
        """Raises ValueError, KeyError or TypeError when `text` is no state of version 1."""
        document = json.loads(text)
        if document["version"] != 1:
            raise ValueError(f"version {document['version']!r} instead of 1")
        return cls(
            active=document["active"],
            worker=_release(document["worker"]),
            maintenance=document["maintenance"],
            colours={colour: _release(document["colours"][colour]) for colour in COLOURS},
        )


def _release(document: dict[str, Any] | None) -> Release | None:
    return Release(**document) if document is not None else None


def load(paths: Paths) -> State:
    """The state as saved, an empty one before the first release; `active` is read from the symbolic link."""
    try:
        state = State.from_json(paths.state.read_text())
    except FileNotFoundError:
        state = State()
    except (ValueError, KeyError, TypeError) as error:
        raise FailedError(
            f"{paths.state} can't be read ({type(error).__name__}: {error}): "
            f"move it away and release anew; what serves now is left alone"
        ) from None
    return replace(state, active=_linked_colour(paths.active))


def save(paths: Paths, state: State) -> None:
    durable.write(paths.state, state.to_json().encode())


def activate(paths: Paths, colour: str) -> None:
    """The flip: from here on nginx connects to this colour's socket."""
    durable.link(paths.active, paths.socket(colour).name)


def _linked_colour(active: Path) -> str | None:
    try:
        target = active.readlink()
    except FileNotFoundError:
        return None
    if target.stem not in COLOURS:
        raise FailedError(f"{active} points to {target}, which is no colour's socket: remove it and release anew")
    return target.stem
