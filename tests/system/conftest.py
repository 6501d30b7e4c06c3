"""Tests of a whole droplet, one directory for each make target. All except the audit change it and need the lab."""

import pytest

from tests.support.environment import Environment
from tests.support.load import Target, lab_target


@pytest.fixture(scope="session")
def target(lab: Environment) -> Target:
    return lab_target(lab)
