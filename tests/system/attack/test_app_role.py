"""The app's database role attacks the superuser that backups, releases, plans and status use.

test_hostile_backup.py restores a backup with the objects that the role planted.
"""
# ruff: noqa: S608

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support.data import backups, problems
from tests.support.environment import ROOT, Environment, status
from tests.system.attack.hostile import FORMER_SETTINGS, ROWS, App, app_of, left_by_a_former_owner, planted

pytestmark = pytest.mark.group("data")


@pytest.fixture
def app(lab: Environment, droplet: Host) -> App:
    return app_of(lab, droplet)


@pytest.fixture
def hostile(app: App) -> Iterator[App]:
    with planted(app):
        yield app


def plan() -> str:
    """Return the output of `make plan`, including warnings."""
    argv = [sys.executable, "-m", "deploys.converge.plan", "inventories/lab.py"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout + ran.stderr


def counted(droplet: Host) -> dict[str, int]:
    """Return the rows of the newest backup, by table."""
    return dict(backups(droplet)[-1]["tables"])


def test_no_code_of_the_app_runs_as_the_superuser_of_backups_releases_plans_or_status(
    lab: Environment, droplet: Host, hostile: App
) -> None:
    """In attack S1, planted code ran as superuser.

    The row counts must also be right, although a policy hides all rows.
    """
    tag = status(droplet)["release"]["tag"]
    for verb in ("backup", f"release {tag}", "status", "amcheck"):
        droplet.check_output(f"stackctl {verb}")
    assert "0 hosts would change" in plan()
    seen = hostile.ran_by()
    assert not hostile.run_as("postgres") | hostile.run_as("stackctl_reader"), seen
    assert hostile.run_as(hostile.login), "the app itself did not run the planted code, so the test proves nothing"
    assert counted(droplet)["sec_app.t"] == ROWS
    assert counted(droplet)['sec_app.odd "."\nname'] == 1
    assert problems(droplet) == []

    # Control: without our settings, the superuser runs the planted code through unqualified names and a count.
    hostile.superuser(
        "SELECT nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace; "
        "SELECT count(*) FROM sec_app.t",
        hostile.database,
    )
    assert {"operator ||", "index"} & hostile.run_as("postgres") == {"operator ||", "index"}


def test_the_database_and_its_settings_are_not_the_apps(app: App) -> None:
    """The app's role has the permissions that a migration needs, but not those of the database's owner."""
    for what in ("SET search_path = public", "SET role = 'x'", "RENAME TO mine", "OWNER TO CURRENT_USER", "RESET ALL"):
        said = app.asks(f"ALTER DATABASE {app.database} {what}", fails=True)
        assert "must be owner of database" in said, said
    assert "permission denied" in app.asks("SET ROLE NONE; SET ROLE postgres", fails=True)
    assert "permission denied" in app.asks("SET ROLE NONE; SET ROLE stackctl_reader", fails=True)
    made = "CREATE SCHEMA sec_made; CREATE EXTENSION citext SCHEMA sec_made; CREATE PUBLICATION sec_made"
    app.asks(f"BEGIN; {made}; CREATE TABLE public.sec_made (n sec_made.citext); ROLLBACK")


def test_settings_of_a_former_owner_are_overridden_and_reported(droplet: Host, app: App) -> None:
    with left_by_a_former_owner(app):
        # Control: the statement of a superuser without our settings is cancelled.
        assert "canceling statement due to statement timeout" in app.superuser("SELECT pg_sleep(1)", app.database)
        droplet.check_output("stackctl backup")
        assert "0 hosts would change" in plan()
        told = status(droplet)
        assert told["problems"] == []
        names = {one.partition(": ")[2].partition("=")[0] for one in told["database_settings"]}
        assert names >= FORMER_SETTINGS.keys()
        assert f"setting      {app.database}: statement_timeout=1" in droplet.check_output("stackctl status")
    assert not [one for one in status(droplet)["database_settings"] if one.startswith(app.database)]


def test_a_role_with_undeclared_powers_is_reported(droplet: Host, app: App) -> None:
    """Attack S1 created a superuser for the attacker, which neither plan nor status reported."""
    app.superuser("CREATE ROLE sec_backdoor SUPERUSER LOGIN; CREATE ROLE sec_looks IN ROLE pg_read_all_data")
    app.superuser(f"GRANT pg_write_all_data TO {app.login}")
    try:
        told = "\n".join(problems(droplet))
        for role, powers in (
            ("sec_backdoor", "superuser"),
            ("sec_looks", "member of pg_read_all_data"),
            (app.login, "member of pg_write_all_data"),
        ):
            assert f"postgres-role:{role}: this PostgreSQL role has undeclared powers: {powers} (" in told
        assert "postgres-role:sec_backdoor" in plan()
    finally:
        app.superuser(f"REVOKE pg_write_all_data FROM {app.login}; DROP ROLE sec_backdoor, sec_looks")
    assert problems(droplet) == []


def test_a_login_with_a_leaked_password_is_dropped_whatever_it_owns(lab: Environment, droplet: Host, app: App) -> None:
    """A large object in another database once kept the role from being dropped, so that its password stayed valid."""
    owner, leaked = lab.settings.values.database_user, f"{lab.settings.values.database_user}_0badc0de"
    app.superuser(f"CREATE ROLE {leaked} LOGIN PASSWORD 'leaked' IN ROLE {owner}; GRANT {owner} TO {leaked}")
    for database in ("postgres", app.database):
        app.superuser(f"SET ROLE {leaked}; SELECT lo_create(0)", database)
    app.superuser(
        f"SET ROLE {leaked}; CREATE FUNCTION public.sec_left() RETURNS int LANGUAGE sql AS 'SELECT 1'", app.database
    )
    # Control: the statements of earlier versions looked only into the app's database.
    said = app.superuser(
        f"BEGIN; REASSIGN OWNED BY {leaked} TO {owner}; DROP OWNED BY {leaked}; DROP ROLE {leaked}", app.database
    )
    assert "cannot be dropped because some objects depend on it" in said
    try:
        droplet.check_output(f"stackctl release {status(droplet)['release']['tag']}")
        assert app.superuser(f"SELECT count(*) FROM pg_roles WHERE rolname = '{leaked}'") == "0"
    finally:
        app.superuser("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        app.superuser("SELECT lo_unlink(oid) FROM pg_largeobject_metadata; DROP FUNCTION public.sec_left", app.database)
    assert json.loads(droplet.check_output("stackctl status --json"))["problems"] == []
