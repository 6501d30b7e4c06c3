"""A droplet in memory with an off-site storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes.droplet import Droplet, installed
from tests.support.fakes.restic import reached


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    live = installed(tmp_path)
    reached(live.paths)
    return live
