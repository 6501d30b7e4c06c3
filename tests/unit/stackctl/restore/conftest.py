"""The fixture of a droplet with a backup and with live data that has changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.restores import NOW


@pytest.fixture
def saved(tmp_path: Path) -> Droplet:
    """Make 1.2.0 live, back up its data, and then add and remove rows and keys."""
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.2.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    droplet.postgres.tables = dict(NOW)
    droplet.redis.info["keys"] = "9"
    droplet.calls.clear()
    return droplet
