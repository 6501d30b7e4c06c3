"""Backups: made by themselves, root's alone, and proven."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("data")


def backups(droplet: Host) -> list[dict[str, Any]]:
    """Oldest first."""
    return list(json.loads(droplet.check_output("stackctl backups --json")))


def test_they_are_made_by_themselves(droplet: Host, place: Place) -> None:
    paths = place.settings.paths
    for timer in (paths.backup_timer, paths.amcheck_timer):
        assert droplet.service(timer).is_enabled
        assert droplet.service(timer).is_running
        planned = droplet.check_output(f"systemctl show --property=NextElapseUSecRealtime --value {timer}")
        assert planned, f"{timer} will never run"
    assert droplet.check_output(f"systemctl show --property=Persistent --value {paths.backup_timer}") == "yes"
    assert not droplet.check_output(f"systemctl list-units --failed --plain --no-legend '{paths.app}-backup*'")


def test_root_alone_sees_them(droplet: Host, place: Place) -> None:
    directory = droplet.file(str(place.settings.paths.backups))
    assert (directory.user, directory.group, directory.mode) == ("root", "root", 0o700)
    assert not droplet.check_output(f"find {directory.path} -type f ! -perm 600")


def test_the_newest_are_what_their_manifests_say(droplet: Host, place: Place) -> None:
    for one in backups(droplet)[-3:]:
        sums = "".join(f"{told['sha256']}  {name}\n" for name, told in one["files"].items())
        droplet.check_output(f"cd {place.settings.paths.backup(one['id'])} && echo '{sums}' | sha256sum --check")


def test_one_that_is_asked_for_is_proven_and_can_be_restored_by_hand(lab: Place, droplet: Host) -> None:
    """By what docs/backups.md says: from a plain file, by the container's own pg_restore."""
    droplet.check_output("stackctl backup")
    *_, newest = backups(droplet)
    assert newest["reason"] == "asked"
    assert newest["verified"]["rows"] == sum(newest["tables"].values())
    assert newest["redis"]["keys"] >= 0
    container = f"{lab.settings.paths.data_project}-postgres-1"
    dump = lab.settings.paths.backup(newest["id"]) / "postgres.dump"
    psql = f"docker exec {container} psql -tA -U postgres"
    droplet.check_output(f"{psql} -c 'CREATE DATABASE beside'")
    try:
        droplet.check_output(
            f"docker exec -i {container} pg_restore --exit-on-error -U postgres --dbname=beside < {dump}"
        )
        for name, rows in newest["tables"].items():
            assert droplet.check_output(f"{psql} -d beside -c 'SELECT count(*) FROM {name}'") == str(rows)  # noqa: S608
    finally:
        droplet.check_output(f"{psql} -c 'DROP DATABASE beside'")
    assert not droplet.check_output("docker ps --all --quiet --filter name=-verify-")
