"""Tests that change or break the droplet, or that repeat failed logins. These tests run only in the lab."""

from pathlib import Path

import pytest

from tests.support import order
from tests.support.environment import Environment

ORDER = (
    "test_converge",
    "test_lock",
    "test_boot",
    "test_interruption",
    "test_certificate",
    "test_passwords",
    "test_release",
    "test_ci",
    "test_backup",
)


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Environment) -> None:
    """Require the lab for tests that do not use the fixture `lab` themselves."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order.sort(items, Path(__file__).parent, ORDER)
