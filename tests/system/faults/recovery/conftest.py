"""Tests of backups, restores and crashes, only in the lab.

Each test starts with a healthy droplet and leaves the droplet healthy.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support.data import Database, live_database
from tests.support.environment import Environment


@pytest.fixture(scope="session", autouse=True)
def _alone(lab: Environment, droplet: Host) -> Iterator[None]:
    """Stop the backup timer, so that no nightly backup runs in between."""
    timer = lab.settings.paths.units.backup_timer
    droplet.check_output(f"systemctl stop {timer}")
    yield
    droplet.check_output(f"systemctl start {timer}")


@pytest.fixture
def database(lab: Environment, droplet: Host) -> Database:
    return live_database(lab, droplet)
