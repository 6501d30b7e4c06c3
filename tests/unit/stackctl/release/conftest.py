"""Droplets before the first release, and after it."""

from pathlib import Path

import pytest

from tests.support.fakes.droplet import Droplet, installed, stackctl


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.fixture
def live(fresh: Droplet) -> Droplet:
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    fresh.calls.clear()
    return fresh
