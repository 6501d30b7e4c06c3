"""What bars the way in, put to the test by events and mistakes: in the lab alone, and too slow for `make test`."""

import pytest

from tests.places import Place


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Place) -> None:
    """For the tests that don't name `lab` themselves."""
