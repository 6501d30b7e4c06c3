"""Fixtures for every test of stackctl."""

from pathlib import Path

import pytest

from stackctl.core.paths import Paths
from tests.support.fakes.droplet import Droplet, installed, stackctl


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths("bot", tmp_path)
    for directory in (paths.var, paths.secrets):
        directory.mkdir(parents=True)
    return paths


@pytest.fixture
def fresh(tmp_path: Path) -> Droplet:
    return installed(tmp_path)


@pytest.fixture
def live(fresh: Droplet) -> Droplet:
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    fresh.calls.clear()
    return fresh
