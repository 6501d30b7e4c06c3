"""A manual backup is verified and can be restored by hand.

`make faults` tests backups further, with a failure in each step.
"""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")


def test_a_manual_backup_is_verified_and_can_be_restored_by_hand(lab: Environment, droplet: Host) -> None:
    """Follow docs/how-to/restore-by-hand.md, and load the dump with the container's own pg_restore."""
    droplet.check_output("stackctl backup")
    *_, newest = json.loads(droplet.check_output("stackctl list-backups --json"))
    assert newest["reason"] == "asked"
    assert newest["verified"]["rows"] == sum(newest["tables"].values())
    assert newest["redis"]["keys"] >= 0
    container = lab.settings.paths.docker.data_container("postgres")
    dump = lab.settings.paths.backup(newest["id"]) / "postgres.dump"
    owner = lab.settings.values.database_user
    psql = f"docker exec {container} psql -X -v ON_ERROR_STOP=1 -tA"
    droplet.check_output(
        f"{psql} -U postgres -c 'CREATE ROLE loader LOGIN' -c 'GRANT {owner} TO loader' "
        f"-c 'ALTER ROLE loader SET role = {owner}' -c 'CREATE DATABASE beside TEMPLATE template0' "
        f"-c 'GRANT CREATE ON DATABASE beside TO {owner}'"
    )
    try:
        # The new database still has no object of the app.
        droplet.check_output(f"{psql} -U postgres -d beside -c 'ALTER SCHEMA public OWNER TO {owner}'")
        load = "pg_restore --exit-on-error --no-owner -U loader -d beside"
        droplet.check_output(f"docker exec -i {container} {load} < {dump}")
        for name, rows in newest["tables"].items():
            counted = droplet.check_output(f"{psql} -U loader -d beside -c 'SELECT count(*) FROM {name}'")  # noqa: S608
            assert counted == str(rows)
    finally:
        droplet.check_output(
            f"{psql} -U postgres -c 'DROP DATABASE beside' -c 'DROP OWNED BY loader' -c 'DROP ROLE loader'"
        )
    assert droplet.run(f"grep -c SCRAM-SHA-256 {dump.parent}/globals.sql").stdout.strip() == "0", (
        "B6: globals.sql contains a password's verifier"
    )
    assert droplet.check_output(f"grep -c 'CREATE ROLE' {dump.parent}/globals.sql") != "0"
    assert not droplet.check_output("docker ps --all --quiet --filter name=-verify-")
