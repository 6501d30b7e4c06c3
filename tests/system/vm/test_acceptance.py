"""The site on a machine with its own kernel: from bare to a release, a rollback and a verified backup.

`make verify ENV=vm` and `make audit ENV=vm` check the rest, as they check every droplet.
"""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support import converge
from tests.support.environment import Environment
from tests.system.vm.machine import another, live


def test_a_second_converge_changes_nothing(vm: Environment) -> None:
    assert converge.changed(converge.site(environment=vm.name)) == set()


def test_a_release_and_its_rollback(machine: Host) -> None:
    old, new = live(machine), another(machine)
    machine.check_output(f"stackctl release {new}")
    assert live(machine) == new
    machine.check_output("stackctl rollback")
    assert live(machine) == old


def test_a_backup_is_verified_and_sent(machine: Host) -> None:
    machine.check_output("stackctl backup")
    newest = json.loads(machine.check_output("stackctl list-backups --json"))[-1]
    assert (newest["verified"], newest["offsite"]) == (True, True)
