"""What the droplet remembers of its releases: the contract's STATE."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from stackctl.core import durable, names, records
from stackctl.core.errors import FailedError
from stackctl.core.paths import COLOURS, Paths
from stackctl.core.records import RecordError, Rule, matching

VERSION = 1


@dataclass(frozen=True)
class Release:
    """An image with the environment it started with."""

    id: str
    """UTC time of its start, as 20251123T154100.123Z; names the environment's snapshot and our tag on the image."""
    tag: Annotated[str, matching(names.TAG, "a tag of an image")]
    """It is shown as something to type, so it has to look like a tag."""
    image: str
    """repository@sha256:…"""
    env_sha256: str
    schema: str | None
    """The newest revision of the schema that its image knows, None when it has none."""
    since: str
    """When it went live. ISO 8601, UTC."""


@dataclass(frozen=True)
class Revision:
    """A step of the schema: an `expand` leaves older releases all they need, a `contract` takes what it replaced."""

    revision: str
    kind: str


@dataclass(frozen=True)
class Webhook:
    """What Telegram was told last. It doesn't tell the secret back, so its fingerprint is kept."""

    url: str
    fingerprint: str


@dataclass(frozen=True)
class State:
    """`active` is what the symbolic link says, whatever was written."""

    active: str | None = None
    worker: Release | None = None
    maintenance: bool = False
    """Whether the flag that nginx looks for is there, whatever was written."""
    colours: Annotated[
        dict[str, Release | None], Rule(lambda known: known.keys() == {*COLOURS}, "an object with blue and green")
    ] = field(default_factory=lambda: dict.fromkeys(COLOURS))
    kept: tuple[Release, ...] = ()
    """What can be rolled back to, and what is live: newest first. Their images and environments are kept."""
    revisions: tuple[Revision, ...] = ()
    """Of the schema, as far as releases applied them; oldest first."""
    webhook: Webhook | None = None
    left: tuple[str, ...] = ()
    """The ids of the kept releases that a rollback has left: it goes back to none of them unless it is named."""

    @property
    def release(self) -> Release | None:
        """The one that serves."""
        return self.colours[self.active] if self.active else None

    def with_colour(self, colour: str, release: Release | None) -> "State":
        return replace(self, colours={**self.colours, colour: release})

    @property
    def recorded_colour(self) -> str | None:
        """The colour of the release that was recorded last. Another one is active amid a release, or after a kill."""
        newest = self.kept[0].id if self.kept else None
        return next((colour for colour, known in self.colours.items() if known and known.id == newest), None)

    @property
    def uncommitted(self) -> bool:
        """What serves is of a release that was cut short. A rollback that was leads to one that is kept."""
        return self.release is not None and self.release.id not in {known.id for known in self.kept}

    def serving(self, colour: str, release: Release, most: int) -> "State":
        """With this release live, and the newest of those kept.

        One that is the same but for its id gives way: released again and again, it would leave nothing to go back to.
        """
        same = (release.tag, release.image, release.env_sha256)
        others = [known for known in self.kept if (known.tag, known.image, known.env_sha256) != same]
        kept = (release, *others)[:most]
        left = tuple(known.id for known in kept if known.id in self.left and known.id != release.id)
        known = replace(self, active=colour, kept=kept, left=left)
        return known.with_colour(colour, release)

    @property
    def earlier(self) -> tuple[Release, ...]:
        """Those that were recorded before the live one, newest first.

        What counts as live is what was recorded: a release that was killed before that was never recorded, so the one
        before it is the newest that is kept.
        """
        return self.kept if self.uncommitted else self.kept[1:]

    @property
    def back(self) -> Release | None:
        """The one that a rollback leads to where none is named."""
        return next((known for known in self.earlier if known.id not in self.left), None)

    def to_json(self) -> str:
        return records.dumps(self, version=VERSION, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "State":
        """Read a state. The keys since `kept` are absent from older ones. Raises RecordError."""
        return records.loads(cls, text, version=VERSION)


def load(paths: Paths) -> State:
    """The state as saved, an empty one before the first release; `active` is read from the symbolic link."""
    try:
        state = State.from_json(paths.state.read_bytes())
    except FileNotFoundError:
        state = State()
    except RecordError as error:
        raise FailedError(
            f"{paths.state} can't be read ({error}): move it away and release anew; what serves now is left alone"
        ) from None
    return replace(state, active=_linked_colour(paths.active), maintenance=paths.maintenance.exists())


def save(paths: Paths, state: State) -> None:
    durable.write(paths.state, state.to_json().encode())


def activate(paths: Paths, colour: str) -> None:
    """The flip: from here on nginx connects to this colour's socket."""
    durable.link(paths.active, paths.socket(colour).name)


def deactivate(paths: Paths) -> None:
    """Back to no release at all."""
    paths.active.unlink(missing_ok=True)


def _linked_colour(active: Path) -> str | None:
    try:
        target = active.readlink()
    except FileNotFoundError:
        return None
    if target.stem not in COLOURS:
        raise FailedError(f"{active} points to {target}, which is no colour's socket: remove it and release anew")
    return target.stem
