"""Another team's image, a plain HTTP server without migrations and worker, needs only changes to group_data."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from subprocess import run

import pytest
from testinfra.host import Host

from tests.lab import lab as machines
from tests.lab.layout import by_name
from tests.support import converge
from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("app")

GROUP_DATA = {
    "app_repository": "registry.lab.test/plain-http",
    "app_command": [],
    "app_migrates": False,
    "app_worker": False,
    "ready_path": "/",
    "version_path": None,
    "webhook_path": None,
    "public_paths": ["/"],
}


DATA = [word for name, value in GROUP_DATA.items() for word in ("--data", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def of_another_team(lab: Environment) -> Iterator[Host]:
    """Recreate a droplet and converge the new one with the other team's group_data."""
    machines.recreate(by_name("droplet1"))
    pyinfra = [sys.executable, "-m", "pyinfra", "-y", "inventories/lab.py", *DATA]
    try:
        for deploy in (["deploys/site.py"], ["deploys/release.py", "--data", 'tag="1.0.0"']):
            ran = run([*pyinfra, *deploy], cwd=ROOT, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr[-4000:]
        droplet = lab.reconnect("droplet1")
        # The off-site backups may be larger, because the lab's bot made them. The first backup may then fail as too
        # small, and the second backup is compared with the first.
        droplet.run("stackctl backup")
        droplet.check_output("stackctl backup")
        yield droplet
    finally:
        machines.recreate(by_name("droplet1"))
        converge.site()
        lab.reconnect("droplet1").check_output("stackctl release 1.0.0")


def test_it_is_released_and_answers(of_another_team: Host, lab: Environment, outside: Host) -> None:
    ask = f"curl -sS --max-time 5 {lab.trust} https://{lab.settings.values.domain}/"
    assert "A plain page." in outside.check_output(ask)
    status = of_another_team.run("stackctl status --json")
    report = json.loads(status.stdout)
    assert (status.rc, report["problems"], report["worker"], report["webhook"]) == (0, [], None, None)
    # Make the same release again.
    assert of_another_team.run("stackctl release 1.0.0").rc == 0


def test_make_verify_passes_for_it(of_another_team: Host) -> None:
    """The checks demand JSON, a schema, a worker or a webhook only from an app that has them."""
    assert of_another_team.run("stackctl status").rc == 0
    verify = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--as-is", *DATA, "tests/droplet"]
    ran = run(verify, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:]
