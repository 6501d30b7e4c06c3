"""A backup that is asked for, and what it is worth. At length, broken at each step: make faults."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.places import Place

pytestmark = pytest.mark.group("data")


def test_one_that_is_asked_for_is_proven_and_can_be_restored_by_hand(lab: Place, droplet: Host) -> None:
    """By what docs/how-to/restore-by-hand.md says: from a plain file, by the container's own pg_restore."""
    droplet.check_output("stackctl backup")
    *_, newest = json.loads(droplet.check_output("stackctl backups --json"))
    assert newest["reason"] == "asked"
    assert newest["verified"]["rows"] == sum(newest["tables"].values())
    assert newest["redis"]["keys"] >= 0
    container = lab.settings.paths.data_container("postgres")
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
    assert droplet.run(f"grep -c SCRAM-SHA-256 {dump.parent}/globals.sql").stdout.strip() == "0", (
        "B6: no password's verifier"
    )
    assert droplet.check_output(f"grep -c 'CREATE ROLE' {dump.parent}/globals.sql") != "0"
    assert not droplet.check_output("docker ps --all --quiet --filter name=-verify-")
