"""An attacker controls the app's database role, plants objects in PostgreSQL and sees which role runs them.

Each planted object writes the role that runs it to the server's log. Other suites also use this module.
"""
# ruff: noqa: S608

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testinfra.host import Host

from tests.support.environment import Environment

ROWS = 3
# Each object tries to become the user who logged in, because pg_amcheck and autovacuum only act as a table's owner. The
# first objects are the operator of attack S1, and the functions and casts that our statements once called.
PLANTED = f"""
CREATE SCHEMA sec_app;
CREATE FUNCTION sec_app.ran(what text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE was text := pg_catalog.current_setting('role');
BEGIN
  BEGIN PERFORM pg_catalog.set_config('role', 'none', true); EXCEPTION WHEN OTHERS THEN NULL; END;
  RAISE LOG 'sec app: % run by %', what, current_user;
  BEGIN PERFORM pg_catalog.set_config('role', was, true); EXCEPTION WHEN OTHERS THEN NULL; END;
  RETURN 1;
END $$;
CREATE FUNCTION public.sec_cat(a name, b name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
  PERFORM sec_app.ran('operator ||'); RETURN a::text OPERATOR(pg_catalog.||) b::text;
END $$;
CREATE OPERATOR public.|| (LEFTARG = name, RIGHTARG = name, FUNCTION = public.sec_cat);
CREATE FUNCTION public.pg_database_size(name) RETURNS bigint LANGUAGE sql AS $$ SELECT sec_app.ran('size')::bigint $$;
CREATE FUNCTION public.count() RETURNS bigint LANGUAGE sql AS $$ SELECT sec_app.ran('count')::bigint $$;
CREATE FUNCTION public.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS
  $$ SELECT sec_app.ran('set_config')::text $$;
CREATE TYPE sec_app.cast AS (n int);
CREATE FUNCTION sec_app.as_text(sec_app.cast) RETURNS text LANGUAGE sql AS $$ SELECT sec_app.ran('cast')::text $$;
CREATE CAST (sec_app.cast AS text) WITH FUNCTION sec_app.as_text AS IMPLICIT;
CREATE DOMAIN sec_app.domain AS int CHECK (sec_app.ran('domain') = 1);
CREATE TABLE sec_app.t (
  n int DEFAULT sec_app.ran('default'), cast_ sec_app.cast, domain_ sec_app.domain,
  made int GENERATED ALWAYS AS (sec_app.ran('generated column')) STORED, CHECK (sec_app.ran('check') = 1)
);
INSERT INTO sec_app.t (n, cast_, domain_) SELECT n, row(n)::sec_app.cast, n FROM generate_series(1, {ROWS}) n;
CREATE INDEX ON sec_app.t ((n + sec_app.ran('index')));
CREATE INDEX ON sec_app.t (n) WHERE sec_app.ran('predicate') = 1;
CREATE POLICY hides ON sec_app.t USING (sec_app.ran('policy') = 0);
ALTER TABLE sec_app.t ENABLE ROW LEVEL SECURITY;
ALTER TABLE sec_app.t FORCE ROW LEVEL SECURITY;
CREATE TABLE sec_app."odd "".""
name" (n int);
INSERT INTO sec_app."odd "".""
name" VALUES (1);
SET ROLE NONE;
ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog;
"""
TAKEN_AWAY = """
DROP SCHEMA IF EXISTS sec_app CASCADE;
DROP OPERATOR IF EXISTS public.|| (name, name);
DROP FUNCTION IF EXISTS public.sec_cat, public.pg_database_size(name), public.count(), public.set_config;
"""
# The app could set these parameters as long as its role owned the database. Now the superuser owns the database.
FORMER_SETTINGS = {
    "search_path": "public, pg_catalog",
    "role": "'pg_monitor'",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "row_security": "on",
    "client_encoding": "'SQL_ASCII'",
    "exit_on_error": "on",
    "DateStyle": "'German'",
}


@dataclass(frozen=True)
class App:
    """The app's login role at the live server."""

    droplet: Host
    container: str
    database: str
    login: str

    def asks(self, sql: str, *, fails: bool = False) -> str:
        """Run SQL as the login role, which acts as the owner.

        Return the answer, or return the error if `fails` is set.
        """
        ran = self._psql(self.login, self.database, sql)
        assert bool(ran[0]) == fails, ran
        return ran[1]

    def superuser(self, sql: str, database: str = "postgres") -> str:
        """Run SQL as the superuser, without the settings that protect stackctl's sessions from the app's roles."""
        return self._psql("postgres", database, sql)[1]

    def ran_by(self) -> dict[str, set[str]]:
        """Return the planted objects that each role has run since the server's container started."""
        log = self.droplet.check_output(f"docker logs {self.container} 2>&1 | grep 'sec app: ' || true")
        found: dict[str, set[str]] = {}
        for what, who in re.findall(r"sec app: (.*) run by (\w+)", log):
            found.setdefault(what, set()).add(who)
        return found

    def run_as(self, who: str) -> set[str]:
        """Return the planted objects that this role has run."""
        return {what for what, by in self.ran_by().items() if who in by}

    def _psql(self, role: str, database: str, sql: str) -> tuple[int, str]:
        psql = f"docker exec -i {self.container} psql -qtAX -v ON_ERROR_STOP=1 -U {role} -d {database}"
        ran = self.droplet.run(f"printf %s {shlex.quote(sql)} | {psql} 2>&1")
        return ran.rc, str(ran.stdout).strip()


def app_of(lab: Environment, droplet: Host) -> App:
    paths, values = lab.settings.paths, lab.settings.values
    return App(droplet, paths.docker.data_container("postgres"), values.database, lab.settings.login_role)


@contextmanager
def planted(app: App) -> Iterator[App]:
    """Plant all objects until the `with` ends."""
    app.asks(PLANTED)
    try:
        yield app
    finally:
        # ALTER ROLE runs first. Otherwise, with the role's own search path, psql would call the objects that are
        # dropped next.
        app.superuser(f"ALTER ROLE {app.login} RESET search_path")
        app.superuser(f"SET search_path = pg_catalog; {TAKEN_AWAY}", app.database)


@contextmanager
def left_by_a_former_owner(app: App) -> Iterator[None]:
    """Set parameters on the database.

    Without our session settings, each parameter would falsify or end a superuser's queries.
    """
    for name, value in FORMER_SETTINGS.items():
        app.superuser(f"ALTER DATABASE {app.database} SET {name} = {value}")
    try:
        yield
    finally:
        app.superuser(f"ALTER DATABASE {app.database} RESET ALL")
