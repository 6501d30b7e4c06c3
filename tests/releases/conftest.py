"""The load and where it goes. Everything here changes droplet1, so the lab alone is meant."""

import pytest

from tests.places import Place
from tests.releases.load import Target, lab_target


@pytest.fixture(scope="session")
def target(lab: Place) -> Target:
    return lab_target(lab)
