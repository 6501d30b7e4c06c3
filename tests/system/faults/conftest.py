"""Tests that break releases, defences and recovery.

These tests run only in the lab, and are too slow for `make test`.
"""

from pathlib import Path

import pytest

from tests.support import order
from tests.support.environment import Environment

ORDER = ("test_release", "defences", "recovery", "test_other_team")


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Environment) -> None:
    """Require the lab for tests that do not use the fixture `lab` themselves."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order.sort(items, Path(__file__).parent, ORDER)
