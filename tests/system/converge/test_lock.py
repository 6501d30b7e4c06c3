"""A converge, a release and a second operator exclude one another. Each refusal names the holder of the lock."""

from __future__ import annotations

import getpass
import signal
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support import converge

pytestmark = pytest.mark.group("app")

ME = f"converge by {getpass.getuser()}@"


@pytest.fixture(scope="class")
def _a_converge_under_way(droplet: Host) -> Iterator[None]:
    """Keep a converge paused in the middle.

    pytest groups tests by the parameter of `droplet`. Without `droplet`, pytest would set up this fixture again and
    start another converge.
    """
    running = converge.start()
    assert running.stdout
    try:
        converge.wait_for(running.stdout, "Starting operation: base")
        running.send_signal(signal.SIGSTOP)  # without the pause, the converge would end in two seconds
        yield
    finally:
        running.send_signal(signal.SIGCONT)
        running.stdout.read()
        assert running.wait() == 0


@pytest.mark.usefixtures("_a_converge_under_way")
class TestWhileAConvergeRuns:
    def test_a_second_one_is_refused_by_name(self) -> None:
        assert f"is locked: {ME}" in converge.failing_site()

    def test_a_release_is_refused_by_name(self, droplet: Host) -> None:
        refused = droplet.run("stackctl release 1.1.0")
        assert refused.rc == 3
        assert ME in refused.stdout + refused.stderr

    def test_a_dry_run_takes_no_lock(self) -> None:
        converge.planned()


def test_a_converge_is_refused_by_name_while_a_release_runs(droplet: Host) -> None:
    droplet.check_output("systemd-run --quiet --unit=release-of-the-tests stackctl release 1.0.0")
    try:
        assert "stackctl release" in converge.failing_site()
    finally:
        droplet.check_output("while systemctl is-active --quiet release-of-the-tests; do sleep 0.2; done")
    assert droplet.run("stackctl status").rc == 0


def test_the_lock_ends_with_its_holder() -> None:
    running = converge.start()
    assert running.stdout
    converge.wait_for(running.stdout, "Starting operation: ssh")
    running.kill()
    running.wait()
    converge.site()
