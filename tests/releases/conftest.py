"""The load and where it goes. Everything here changes droplet1, so the lab alone is meant."""

from collections.abc import Callable

import pytest

from tests.places import Place
from tests.releases.load import Target, lab_target


@pytest.fixture(scope="session")
def target(lab: Place) -> Target:
    return lab_target(lab)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints though pytest captures: the figures are what these tests are run for."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return show
