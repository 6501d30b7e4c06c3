"""Tests that break things, change them or try too often: in the lab alone."""

import pytest

from tests.places import Place


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Place) -> None:
    """For the tests that don't name `lab` themselves."""
