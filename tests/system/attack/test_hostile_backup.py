"""A backup contains SQL that tries to run as PostgreSQL's superuser during a verification or a restore.

Rows that are loaded run code of the schema, in CHECK constraints, generated columns and index functions. An
intruder may have written a whole off-site backup, including globals.sql. As the control, each test also loads the
backup as the superuser, as earlier versions did, and shows that the attack then works.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from stackctl.core.disk import SPARE
from tests.support.data import Database, backups, connected, leftovers, live_database, problems
from tests.support.environment import Environment

pytestmark = pytest.mark.group("data")

BESIDE = "sec_beside"
# The function tries to become the user who logged in, logs its current role, and breaks a superuser's session. Neither
# a dump nor a count calls the function.
WITNESS = """
CREATE SCHEMA sec;
CREATE FUNCTION sec.witness(what text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE was text := pg_catalog.current_setting('role');
BEGIN
  BEGIN PERFORM pg_catalog.set_config('role', 'none', true); EXCEPTION WHEN OTHERS THEN NULL; END;
  RAISE LOG 'sec witness: % in % by %, superuser %', what, pg_catalog.current_database(), current_user,
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user);
  IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'I am superuser in %', what;
  END IF;
  BEGIN PERFORM pg_catalog.set_config('role', was, true); EXCEPTION WHEN OTHERS THEN NULL; END;
  RETURN 1;
END $$;
CREATE DOMAIN sec.watched AS int CHECK (sec.witness('domain') = VALUE);
CREATE TABLE sec.loaded (
    id int PRIMARY KEY, one sec.watched,
    made int GENERATED ALWAYS AS (sec.witness('generated column')) STORED,
    CONSTRAINT watched CHECK (sec.witness('check') = 1)
);
CREATE INDEX ON sec.loaded ((id + sec.witness('index')));
CREATE INDEX ON sec.loaded (id) WHERE sec.witness('predicate') = 1;
CREATE STATISTICS sec.told ON (id + sec.witness('statistics')), one FROM sec.loaded;
CREATE FUNCTION sec.fired() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM sec.witness('trigger'); RETURN NEW; END $$;
INSERT INTO sec.loaded VALUES (1, 1), (2, 1);
CREATE TRIGGER fired BEFORE INSERT ON sec.loaded FOR EACH ROW EXECUTE FUNCTION sec.fired();
CREATE MATERIALIZED VIEW sec.seen AS SELECT sec.witness('materialized view') + id AS n FROM sec.loaded;
"""
WHERE_IT_RUNS = {"domain", "generated column", "check", "index", "predicate", "materialized view"}
GLOBALS = """\
CREATE ROLE sec_evil;
ALTER ROLE sec_evil NOLOGIN; COPY (SELECT 1) TO PROGRAM 'touch /tmp/sec_evil';
CREATE ROLE sec_login;
ALTER ROLE sec_login WITH SUPERUSER LOGIN PASSWORD 'sec';
GRANT postgres TO sec_evil;
\\! touch /tmp/sec_evil
"""
ENDLESS = """
CREATE SCHEMA sec;
CREATE TABLE sec.junk (filler text);
ALTER TABLE sec.junk ALTER filler SET STORAGE EXTERNAL;
CREATE FUNCTION sec.endless() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  WHILE pg_catalog.current_database() = 'proof' LOOP
    INSERT INTO sec.junk VALUES (pg_catalog.repeat('x', 1000000));
  END LOOP;
  RETURN true;
END $$;
CREATE TABLE sec.loaded (id int CHECK (sec.endless()));
INSERT INTO sec.loaded VALUES (1);
"""
MAY_FILL = 400
"""The MiB of disk that the hostile backup may fill."""
# The lab's machines share a disk, so the test requires so much free space that the backup may use only a little.
BACKUP = """
import sys
from pathlib import Path
sys.path.insert(0, "/usr/local/bin/stackctl")
sys.argv = ["stackctl", "backup"]
from stackctl.backup import verify
from stackctl.cli.main import main
from stackctl.core.machine import Machine
verify.SPARE = Machine().free(Path("{backups}")) - ({may_fill} << 20)
main("{app}")
"""
FILLED = """
(while :; do du -sm {backups}/*/work 2>/dev/null; sleep 0.1; done > /tmp/sec_filled) & watch=$!
python3 -c {program}
code=$?
kill $watch
sort -n /tmp/sec_filled | tail -n 1
exit $code
"""
THERE = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sec%'"


@pytest.fixture
def database(lab: Environment, droplet: Host) -> Database:
    return live_database(lab, droplet)


def as_the_app(droplet: Host, database: Database, sql: str) -> str:
    """Run SQL as the app's login role, which acts as the owner. Return the answer."""
    return str(droplet.check_output(f"printf %s {shlex.quote(sql)} | {database.psql()}"))


def witnesses(droplet: Host, database: Database, name: str) -> dict[str, set[str]]:
    """Return which roles ran planted code in this database, according to the live server's log."""
    log = droplet.check_output(f"docker logs {database.container} 2>&1 | grep 'sec witness:' || true")
    found: dict[str, set[str]] = {}
    for what, where, who, powers in re.findall(r"sec witness: (.*) in (\w+) by (\w+), superuser (\w)", log):
        if where == name:
            found.setdefault(what, set()).add("a superuser" if powers == "t" else who)
    return found


@pytest.fixture
def hostile(lab: Environment, droplet: Host, database: Database) -> Iterator[str]:
    """Make a backup of the planted objects, and return its ID.

    The backup is verified, although it contains planted objects.
    """
    as_the_app(droplet, database, WITNESS)
    droplet.check_output("stackctl backup")
    yield backups(droplet)[-1]["id"]
    droplet, database = connected(lab)
    database.ask("DROP SCHEMA sec CASCADE")
    for name in (BESIDE, f"{BESIDE}_control"):
        database.ask(f"DROP DATABASE IF EXISTS {name}", "postgres")
    droplet.check_output("stackctl backup")
    assert (problems(droplet), leftovers(droplet)) == ([], "")


def test_code_that_runs_while_rows_are_loaded_has_no_privileges(
    lab: Environment, droplet: Host, database: Database, hostile: str
) -> None:
    owner = lab.settings.values.database_user
    droplet.check_output(f"stackctl restore {hostile} --to-database {BESIDE}")
    droplet.check_output(f"stackctl restore {hostile} --yes {hostile}")
    droplet, database = connected(lab)
    for name in (f"{BESIDE}_restoring", f"{database.name}_restoring"):
        seen = witnesses(droplet, database, name)
        assert seen.keys() >= WHERE_IT_RUNS, seen
        assert set().union(*seen.values()) <= {owner, "stackctl_restore"}, seen
    assert as_the_app(droplet, database, "SELECT count(*) FROM sec.loaded") == "2"
    assert database.ask("SELECT count(*) FROM pg_roles WHERE rolname = 'stackctl_restore'") == "0"

    control = f"{BESIDE}_control"
    database.ask(f"CREATE DATABASE {control} TEMPLATE template0", "postgres")
    dump = lab.settings.paths.backup(hostile) / "postgres.dump"
    restored = droplet.run(f"docker exec -i {database.container} pg_restore -U postgres -d {control} < {dump}")
    assert "I am superuser in" in restored.stderr
    assert "a superuser" in set().union(*witnesses(droplet, database, control).values())


@pytest.fixture
def forged(lab: Environment, droplet: Host, database: Database) -> Iterator[str]:
    """Make a backup with a forged globals.sql and a matching manifest. Return the backup's ID."""
    droplet.check_output("stackctl backup")
    (newest,) = backups(droplet)[-1:]
    made = f"{newest['id'][:-4]}000Z" if not newest["id"].endswith("000Z") else f"{newest['id'][:-4]}001Z"
    place = lab.settings.paths.backups / made
    droplet.check_output(f"cp --recursive --preserve {lab.settings.paths.backup(newest['id'])} {place}")
    droplet.check_output(f"printf %s {shlex.quote(GLOBALS)} > {place}/globals.sql")
    size, sha256 = droplet.check_output(f"stat -c %s {place}/globals.sql; sha256sum < {place}/globals.sql").split()[:2]
    newest["id"] = made
    newest["files"]["globals.sql"] = {"bytes": int(size), "sha256": sha256}
    told = {"version": 2, **{key: value for key, value in newest.items() if key != "unproven"}}
    droplet.check_output(f"printf %s {shlex.quote(json.dumps(told))} > {place}/manifest.json")
    yield made
    droplet, database = connected(lab)
    droplet.check_output(f"rm -r {place}; docker exec {database.container} rm -f /tmp/sec_evil")
    for role in ("sec_evil", "sec_login"):
        database.ask(f"DROP ROLE IF EXISTS {role}", "postgres")
    database.ask(f"DROP DATABASE IF EXISTS {BESIDE}", "postgres")


def was_run(droplet: Host, database: Database) -> bool:
    return bool(droplet.run(f"docker exec {database.container} test -e /tmp/sec_evil").rc == 0)


def test_no_line_of_its_globals_is_run(lab: Environment, droplet: Host, database: Database, forged: str) -> None:
    droplet.check_output(f"stackctl restore {forged} --to-database {BESIDE}")
    assert (was_run(droplet, database), database.ask(THERE)) == (False, "0")
    droplet.check_output(f"stackctl restore {forged} --yes {forged}")
    droplet, database = connected(lab)
    assert (was_run(droplet, database), database.ask(THERE)) == (False, "0")

    globals_ = lab.settings.paths.backup(forged) / "globals.sql"
    droplet.check_output(
        f"grep -v '^.!' {globals_} | docker exec -i {database.container} psql -qX -U postgres -d postgres"
    )
    assert (was_run(droplet, database), database.ask(THERE)) == (True, "2")


@pytest.fixture
def endless(lab: Environment, droplet: Host, database: Database) -> Iterator[None]:
    as_the_app(droplet, database, ENDLESS)
    yield
    database.ask("DROP SCHEMA sec CASCADE")
    droplet.check_output("rm -f /tmp/sec_filled; stackctl backup")
    assert (problems(droplet), leftovers(droplet)) == ([], "")


@pytest.mark.usefixtures("endless")
def test_a_load_that_writes_without_end_does_not_fill_the_disk_during_the_verification(
    lab: Environment, droplet: Host
) -> None:
    paths = lab.settings.paths
    program = BACKUP.format(backups=paths.backups, may_fill=MAY_FILL, app=paths.app)
    ran = droplet.run(FILLED.format(backups=paths.backups, program=shlex.quote(program)))
    assert (ran.rc, "is left on the disk" in ran.stdout + ran.stderr) == (1, True), ran
    filled = int(ran.stdout.splitlines()[-1].split()[0])
    assert MAY_FILL / 2 < filled < MAY_FILL + (SPARE >> 20), ran.stdout
