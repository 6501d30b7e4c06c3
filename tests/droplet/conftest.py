"""Checks that only read: `make verify ENV=prod` runs them on production. In the lab they first bring it up."""

import pytest
from testinfra.host import Host

from tests.places import Place


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, place: Place) -> None:
    if place.name == "lab":
        request.getfixturevalue("lab")


@pytest.fixture(params=["-4", "-6"])
def family(request: pytest.FixtureRequest, outside: Host, place: Place) -> str:
    """An option of curl and nmap. A place may do without IPv6 (tests/skips.txt); the lab has it."""
    domain = place.settings.values.domain
    if request.param == "-6" and outside.run(f"getent ahostsv6 {domain} | grep -v ::ffff:").rc != 0:
        without = pytest.fail if place.name == "lab" else pytest.skip
        without(f"{domain} has no IPv6 address")
    return str(request.param)
