"""Tells whether this droplet is a copy: a droplet that was made from an image of another droplet.

A converge records the instance ID of the droplet that it converged. cloud-init writes the present instance ID early at
each boot. On DigitalOcean, the instance ID is the droplet's ID, which a reboot, a resize, and a restore of the
droplet's own snapshot keep. On a copy, the two IDs differ.
"""

from stackctl.core.errors import NEXT, RefusedError
from stackctl.core.paths import Paths
from stackctl.core.records import matching

LONGEST = 128
"""Characters of an instance ID. A droplet's ID has nine digits, and the longest known IDs are UUIDs."""
PATTERN = rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{LONGEST - 1}}}"
FORMAT = matching(PATTERN, f"an instance ID of at most {LONGEST} letters, digits and . _ : -")
_SUBSTITUTES = {"iid-datasource", "iid-datasource-none"}
"""The instance IDs that cloud-init writes if the provider's metadata service has not answered."""

CAUSE = "this droplet was made from an image of another droplet, so the app does not run here"
NEXT_STEP = "make isolate to look at the copy's data, or make promote if this droplet replaces the original"
REMEDY = f"{CAUSE}{NEXT}{NEXT_STEP}"


def parse(text: str) -> str | None:
    """Return the instance ID in the content of cloud-init's file.

    Return None if the content is no ID, because the content comes from the provider's metadata service. Also return
    None for an ID that says nothing about the droplet.
    """
    found = text.strip()
    return found if FORMAT.holds(found) and found not in _SUBSTITUTES else None


def present(paths: Paths) -> str | None:
    """Return the instance ID of this droplet, or None if it is unknown, such as without cloud-init."""
    try:
        with paths.instance_id.open("rb") as file:
            return parse(file.read(2 * LONGEST).decode())
    except (OSError, UnicodeDecodeError):
        return None


def differ(recorded: str | None, found: str | None) -> bool:
    """Return whether both IDs are known, and belong to different droplets."""
    return recorded is not None and found is not None and recorded != found


def is_copy(recorded: str | None, paths: Paths) -> bool:
    """Return whether this droplet is a copy of the droplet whose instance ID is recorded."""
    return differ(recorded, present(paths))


def refusal() -> RefusedError:
    """Return the error with which a verb is refused on a copy."""
    return RefusedError(CAUSE, next_step=NEXT_STEP)
