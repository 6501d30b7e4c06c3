"""Checks that only read: `make verify ENV=prod` runs them on production. In the lab they first bring it up."""

import pytest

from tests.places import Place


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, place: Place) -> None:
    if place.name == "lab":
        request.getfixturevalue("lab")
