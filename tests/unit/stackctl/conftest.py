"""Fixtures for every test of stackctl."""

from pathlib import Path

import pytest

from stackctl.core.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths("bot", tmp_path)
    for directory in (paths.var, paths.secrets):
        directory.mkdir(parents=True)
    return paths
