"""Reads and writes state.json, in which the droplet remembers its releases."""

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
    """An image with its app environment."""

    id: str
    """UTC time of the start, as 20251123T154100.123Z. Our image tag and the kept app environment have this name."""
    tag: Annotated[str, matching(names.TAG, "a tag of an image")]
    """Messages show the tag in commands to type, so the tag must be valid."""
    image: str
    """repository@sha256:…"""
    env_sha256: str
    schema: str | None
    """The newest revision of the schema that the image knows, or None if the image has no migrations."""
    since: str
    """When the release went live. ISO 8601, UTC."""


@dataclass(frozen=True)
class Revision:
    """A revision of the schema. Older releases still work after an `expand`, but may not work after a `contract`."""

    revision: str
    kind: str


@dataclass(frozen=True)
class Webhook:
    """The webhook that was last set at Telegram. The fingerprint is kept because Telegram never returns the secret."""

    url: str
    fingerprint: str


@dataclass(frozen=True)
class State:
    """The content of state.json.

    Only `active` and `maintenance` come from elsewhere: `load` reads `active` from nginx's link, and `maintenance` from
    a flag file.
    """

    active: str | None = None
    worker: Release | None = None
    maintenance: bool = False
    """Whether the flag file that nginx looks for exists."""
    colours: Annotated[
        dict[str, Release | None], Rule(lambda known: known.keys() == {*COLOURS}, "an object with blue and green")
    ] = field(default_factory=lambda: dict.fromkeys(COLOURS))
    kept: tuple[Release, ...] = ()
    """The live release and the targets of a rollback, newest first. Their images and environments are kept."""
    revisions: tuple[Revision, ...] = ()
    """The revisions of the schema that releases have applied, oldest first."""
    webhook: Webhook | None = None
    left: tuple[str, ...] = ()
    """The ids of the kept releases that were rolled back. A rollback uses such a release only by name."""

    @property
    def release(self) -> Release | None:
        """The live release."""
        return self.colours[self.active] if self.active else None

    def with_colour(self, colour: str, release: Release | None) -> "State":
        return replace(self, colours={**self.colours, colour: release})

    @property
    def recorded_colour(self) -> str | None:
        """The colour of the release that was recorded last.

        During a release, or after a killed release, another colour may be active.
        """
        newest = self.kept[0].id if self.kept else None
        return next((colour for colour, known in self.colours.items() if known and known.id == newest), None)

    @property
    def uncommitted(self) -> bool:
        """Whether the live release was interrupted before the step `record`. All recorded releases are in `kept`."""
        return self.release is not None and self.release.id not in {known.id for known in self.kept}

    def serving(self, colour: str, release: Release, most: int) -> "State":
        """Return the state with this release live, and as the newest kept release.

        An earlier release with the same tag, image and app environment is dropped. Without this rule, repeated releases
        of one tag would push out every release that a rollback could use.
        """
        same = (release.tag, release.image, release.env_sha256)
        others = [known for known in self.kept if (known.tag, known.image, known.env_sha256) != same]
        kept = (release, *others)[:most]
        left = tuple(known.id for known in kept if known.id in self.left and known.id != release.id)
        known = replace(self, active=colour, kept=kept, left=left)
        return known.with_colour(colour, release)

    @property
    def earlier(self) -> tuple[Release, ...]:
        """The releases that were recorded before the live release, newest first.

        An uncommitted release was never recorded, so the release before it is the newest kept release.
        """
        return self.kept if self.uncommitted else self.kept[1:]

    @property
    def back(self) -> Release | None:
        """The release that a rollback without a tag makes live."""
        return next((known for known in self.earlier if known.id not in self.left), None)

    def to_json(self) -> str:
        return records.dumps(self, version=VERSION, indent=2).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "State":
        """Read a state, even if an older version of stackctl wrote the file without some of the keys.

        Raises RecordError.
        """
        return records.loads(cls, text, version=VERSION)


def load(paths: Paths) -> State:
    """Return the saved state, or an empty state before the first release. `active` comes from nginx's link."""
    try:
        state = State.from_json(paths.state.read_bytes())
    except FileNotFoundError:
        state = State()
    except RecordError as error:
        raise FailedError(
            f"{paths.state} can't be read ({error}). The live release was not changed",
            next_step="move the file away, then release again",
        ) from None
    return replace(state, active=_linked_colour(paths.active), maintenance=paths.maintenance.exists())


def save(paths: Paths, state: State) -> None:
    durable.write(paths.state, state.to_json().encode())


def activate(paths: Paths, colour: str) -> None:
    """Flip: point nginx at this colour's socket."""
    durable.link(paths.active, paths.socket(colour).name)


def deactivate(paths: Paths) -> None:
    """Point nginx at no release."""
    paths.active.unlink(missing_ok=True)


def _linked_colour(active: Path) -> str | None:
    try:
        target = active.readlink()
    except FileNotFoundError:
        return None
    if target.stem not in COLOURS:
        raise FailedError(
            f"{active} points to {target}, which is neither the blue nor the green socket",
            next_step="remove the link, then release again",
        )
    return target.stem
