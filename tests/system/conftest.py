"""Tests of a whole droplet, one directory for each make target. All but the audit change it: in the lab alone."""

import pytest

from tests.support.environment import Environment
from tests.support.load import Target, lab_target


@pytest.fixture(scope="session")
def target(lab: Environment) -> Target:
    return lab_target(lab)
