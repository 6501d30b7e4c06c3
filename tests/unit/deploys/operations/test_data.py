"""Data directories and PostgreSQL's roles are created as declared."""

from __future__ import annotations

from typing import Any

from pyinfra.facts.files import File

from deploys.facts.data import LINK, DirectoryState, RolesAsDeclared
from deploys.operations.data import data_directory, postgres_roles
from tests.support.operations import commands, droplet


def test_a_lost_data_directory_is_not_created_again() -> None:
    arguments: dict[str, Any] = {"path": "/data/postgres", "uid": 999, "installed": "/opt/app/data.yaml"}
    (refused,) = commands(data_directory, {DirectoryState: None, File: {"mode": 644}}, **arguments)
    assert "mount the volume" in refused
    assert refused.endswith("false")
    (made,) = commands(data_directory, {DirectoryState: None, File: None}, **arguments)
    assert made == "install -d -m 700 -o 999 -g 999 /data/postgres"
    assert commands(data_directory, {DirectoryState: "700 999 999"}, **arguments) == []
    (mended,) = commands(data_directory, {DirectoryState: "755 0 0"}, **arguments)
    assert mended.startswith("chown 999:999")


def test_a_data_directory_that_is_a_link_changes_no_owner() -> None:
    arguments: dict[str, Any] = {"path": "/data/redis", "uid": 999, "installed": "/opt/data.yaml"}
    (refused,) = commands(data_directory, {DirectoryState: LINK}, **arguments)
    assert "is a symbolic link. Next: mount the volume at /data/redis instead" in refused
    assert refused.endswith(">&2; false")


ROLES: dict[str, Any] = {
    "container": "app-data-postgres-1",
    "database": "shop",
    "owner": "app",
    "login": "app_01234567",
    "password": "it's \\ secret",
}


def test_roles_as_declared_are_left_alone() -> None:
    assert commands(postgres_roles, {RolesAsDeclared: True}, **ROLES) == []


def test_a_password_reaches_postgresql_by_standard_input_and_stays_out_of_its_log() -> None:
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    assert "secret" not in str(alter)
    statements = alter.connector_arguments["_stdin"]
    (secret,) = (number for number, line in enumerate(statements) if "PASSWORD 'it''s \\ secret';" in line)
    assert "SET log_min_error_statement = 'panic';" in statements[:secret]
    reset, acts = (statements.index(f'ALTER ROLE "app_01234567" {what};') for what in ("RESET ALL", 'SET role = "app"'))
    assert reset < acts
    assert "ALTER ROLE postgres PASSWORD NULL;" in statements


def test_the_app_owns_neither_the_database_nor_its_settings() -> None:
    """Prevent attack S1. The app's role may still create schemas and trusted extensions, for which CREATE is enough."""
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    statements = alter.connector_arguments["_stdin"]
    assert 'ALTER DATABASE "shop" OWNER TO postgres;' in statements
    assert 'GRANT CREATE, CONNECT, TEMPORARY ON DATABASE "shop" TO "app";' in statements


def test_roles_are_made_in_a_session_that_the_app_cannot_influence() -> None:
    with droplet({RolesAsDeclared: False}):
        (alter,) = postgres_roles._inner(**ROLES)
    line, statements = str(alter), alter.connector_arguments["_stdin"]
    assert "PGOPTIONS=-c search_path=pg_catalog,pg_temp -c role=none" in line
    assert "lock_timeout=10s" in line
    assert "--dbname=postgres" in line
    moved = statements.index('\\connect "shop"')
    assert [one for one in statements[moved:] if "SCHEMA" not in one] == ['\\connect "shop"']


def test_owners_are_read_where_the_app_cannot_lie() -> None:
    """The app's login role and the superuser both use our session settings.

    The superuser connects only to the database `postgres`.
    """
    told = {"container": "c", "owner": "app", "login": "app_01234567", "database": "shop"}
    line = str(RolesAsDeclared().command(**told))
    by_login, by_superuser = line.split("; psql")
    assert by_login.startswith("docker exec --env 'PGOPTIONS=-c search_path=pg_catalog,pg_temp -c role=none")
    assert "-d shop -h" in by_login
    assert by_login.count("search_path=pg_catalog,pg_temp") == 2
    assert by_login.count("role=none") == 1, "one question must show the role as which the login role acts"
    assert "-d postgres -U postgres" in by_superuser
    assert "--no-psqlrc" in by_superuser
    assert all(word in by_superuser for word in ("datdba =", "CREATE", "CONNECT", "TEMPORARY"))
