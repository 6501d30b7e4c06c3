"""Tests of a whole droplet, with one directory per make target. All tests except the audit change the lab's droplet."""

import pytest

from tests.support.environment import Environment
from tests.support.load import Target, lab_target


@pytest.fixture(scope="session")
def target(lab: Environment) -> Target:
    return lab_target(lab)
