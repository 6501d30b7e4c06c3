"""Options and fixtures of the whole suite. Only tests in tests/skips.txt may be skipped."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from testinfra.host import Host

from tests.support.environment import Environment
from tests.support.probes import Stray, stray_compose_file

ROOT = Path(__file__).parents[1]
ALLOWED_SKIPS = frozenset(
    line for line in (ROOT / "tests" / "skips.txt").read_text().splitlines() if line and not line.startswith("#")
)

# On a busy machine an example may take longer than hypothesis's default deadline of 200 ms.
settings.register_profile("marketplace-infra", deadline=None, print_blob=True)
# In CI, every run uses the same examples, so a push fails only because of its own changes.
settings.register_profile("ci", settings.get_profile("marketplace-infra"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "marketplace-infra")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--env", default="lab", choices=["lab", "vm", "staging", "prod"], help="the environment to check")
    parser.addoption("--data", action="append", default=[], help="NAME=JSON, as for the converge")
    parser.addoption("--as-is", action="store_true", help="check the lab as it is, without a converge")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "group(name): the inventory group whose hosts the test's `droplet` is taken from"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `droplet` on every host of its module's group."""
    if "droplet" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("group")
        group = marker.args[0] if marker else "everywhere"
        hosts = Environment(metafunc.config.getoption("--env")).hosts(group)
        metafunc.parametrize("droplet", hosts, indirect=True, scope="session")


@pytest.fixture(scope="session")
def env(pytestconfig: pytest.Config) -> Environment:
    told = (one.partition("=") for one in pytestconfig.getoption("--data"))
    return Environment(pytestconfig.getoption("--env"), {name: json.loads(value) for name, _, value in told})


@pytest.fixture(scope="session")
def droplet(request: pytest.FixtureRequest, env: Environment) -> Host:
    return env.connect(request.param)


@pytest.fixture(scope="session")
def lab_as_it_is(env: Environment) -> Environment:
    """Return the lab in its current state. Tests with this fixture may change the lab, so `--env` must be `lab`."""
    if env.name != "lab":
        pytest.fail(f"this test changes things, and {env.name} is not the lab. Next: leave out --env.", pytrace=False)
    return env


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, lab_as_it_is: Environment) -> Environment:
    """Return the lab after it is up, converged and released."""
    if not pytestconfig.getoption("--as-is"):
        from tests.lab.demo import converged_and_released  # noqa: PLC0415 - it needs root, the checks elsewhere don't

        converged_and_released()
    return lab_as_it_is


@pytest.fixture(scope="session")
def outside(env: Environment) -> Host:
    return env.outside


@pytest.fixture(params=["-4", "-6"])
def family(request: pytest.FixtureRequest, outside: Host, env: Environment) -> str:
    """Return the option -4 or -6 for curl and nmap.

    The lab has IPv6, and other environments may lack IPv6 (tests/skips.txt).
    """
    domain = env.settings.values.domain
    if request.param == "-6" and outside.run(f"getent ahostsv6 {domain} | grep -v ::ffff:").rc != 0:
        without = pytest.fail if env.in_lab else pytest.skip
        without(f"{domain} has no IPv6 address")
    return str(request.param)


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[None]:
    """Remove a test's files, even a tree too deep for pytest, which would fail to remove the tree in a later run."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints although pytest captures output.

    Some tests are run for the figures that they print.
    """

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return show


@pytest.fixture(scope="module")
def stray(lab: Environment, droplet: Host) -> Iterator[Stray]:
    """Start a container of a foreign Compose file that publishes ports."""
    with stray_compose_file(droplet) as there:
        yield there


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    unexpected = {report.nodeid for report in reporter.stats.get("skipped", [])} - ALLOWED_SKIPS
    if unexpected:
        reporter.write_line(f"skipped but not in tests/skips.txt: {', '.join(sorted(unexpected))}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
