"""Droplets before the first release, after it, and after a release that was killed."""

from pathlib import Path

import pytest

from stackctl.app import state
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import killed_at_its_watch


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.fixture
def live(fresh: Droplet) -> Droplet:
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    fresh.calls.clear()
    return fresh


@pytest.fixture
def uncommitted(live: Droplet) -> Droplet:
    """Kill the release of 1.1.0 during its watch: nginx points to it, and 1.0.0 is warm."""
    left = killed_at_its_watch(live, "1.1.0")
    assert (state.load(left.paths).active, left.docker.running()) == ("green", ["blue", "green"])
    left.calls.clear()
    return left
