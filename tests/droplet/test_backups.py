"""Timers make backups, which are verified and readable only by root."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")


def test_timers_make_and_verify_backups(droplet: Host, env: Environment) -> None:
    paths = env.settings.paths
    for timer in (paths.units.backup_timer, paths.units.amcheck_timer):
        assert droplet.service(timer).is_enabled
        assert droplet.service(timer).is_running
        planned = droplet.check_output(f"systemctl show --property=NextElapseUSecRealtime --value {timer}")
        assert planned, f"{timer} will never run"
    assert droplet.check_output(f"systemctl show --property=Persistent --value {paths.units.backup_timer}") == "yes"
    assert not droplet.check_output(f"systemctl list-units --failed --plain --no-legend '{paths.app}-backup*'")


def test_only_root_can_read_backups(droplet: Host, env: Environment) -> None:
    directory = droplet.file(str(env.settings.paths.backups))
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o700)
    assert not droplet.check_output(f"find {directory.path} -type f ! -perm 600")


def test_the_newest_backups_match_their_manifests(droplet: Host, env: Environment) -> None:
    made = json.loads(droplet.check_output("stackctl list-backups --json"))
    if not made:
        without = pytest.fail if env.in_lab else pytest.skip
        without(f"There is no backup yet. Next: make backup ENV={env.name}")
    for one in made[-3:]:
        sums = "".join(f"{told['sha256']}  {name}\n" for name, told in one["files"].items())
        droplet.check_output(f"cd {env.settings.paths.backup(one['id'])} && echo '{sums}' | sha256sum --check")
