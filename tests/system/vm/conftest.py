"""Tests that need a kernel of their own. `make vm-tests` runs them on the lab's virtual machine.

Each test starts with a healthy machine, and leaves it healthy. The first test converges the machine from bare.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.lab.layout import VM
from tests.support import order
from tests.support.environment import Environment
from tests.system.vm.machine import connect

ORDER = ("test_acceptance", "test_limits", "test_boot", "test_power", "test_restore", "test_disk", "test_copy")


@pytest.fixture(scope="session", autouse=True)
def vm(pytestconfig: pytest.Config, env: Environment) -> Iterator[Environment]:
    """Return the environment `vm` after it is up, converged and released, without a nightly backup in between."""
    if env.name != VM.name:
        pytest.fail("these tests need the virtual machine. Next: make vm-tests", pytrace=False)
    if not pytestconfig.getoption("--as-is"):
        from tests.lab.demo import converged_and_released  # noqa: PLC0415 - it needs root, the checks elsewhere don't

        converged_and_released(VM.name)
    timer = env.settings.paths.units.backup_timer
    connect(env).check_output(f"systemctl stop {timer}")
    yield env
    connect(env).check_output(f"systemctl start {timer}")


@pytest.fixture
def machine(vm: Environment) -> Host:
    """Return a fresh connection to the machine, which an earlier test may have switched off."""
    return connect(vm)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order.sort(items, Path(__file__).parent, ORDER)
