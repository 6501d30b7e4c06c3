"""The fixture of a droplet on which a release was killed."""

import pytest

from stackctl.app import state
from tests.support.fakes.droplet import Droplet
from tests.support.fakes.kills import killed_at_its_watch


@pytest.fixture
def uncommitted(live: Droplet) -> Droplet:
    """Kill the release of 1.1.0 during its watch, when nginx points to 1.1.0 and 1.0.0 still runs."""
    left = killed_at_its_watch(live, "1.1.0")
    assert (state.load(left.paths).active, left.docker.running()) == ("green", ["blue", "green"])
    left.calls.clear()
    return left
