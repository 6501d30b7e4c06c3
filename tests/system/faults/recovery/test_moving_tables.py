"""Backups run beside jobs that empty, drop and rewrite tables (R1 and R4 of the public reports).

`TRUNCATE` and any `ALTER TABLE` that rewrites a table aren't MVCC-safe. An older PostgreSQL snapshot sees an empty
table.
"""
# ruff: noqa: S608

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support import under_way
from tests.support.data import Database, backups, leftovers, live_database, problems
from tests.support.environment import ROOT, Environment
from tests.support.under_way import UnderWay

pytestmark = pytest.mark.group("data")

ROWS = 1000
BIG = 200_000
RELOAD = f"BEGIN; TRUNCATE sec_near; INSERT INTO sec_near SELECT n FROM generate_series(1, {ROWS}) n; COMMIT;"
DURING = {
    "reload": RELOAD,
    "drop": "DROP TABLE sec_near",
    "change of type": "ALTER TABLE sec_near ALTER COLUMN n TYPE bigint",
    "new partition": "CREATE TABLE sec_days_2 PARTITION OF sec_days FOR VALUES IN (2); DROP TABLE sec_days_1",
}


@pytest.fixture(scope="module", autouse=True)
def _something_to_dump(lab: Environment, droplet: Host) -> Iterator[None]:
    """Fill a table, so that the dump takes a moment."""
    database = live_database(lab, droplet)
    database.ask(f"CREATE TABLE sec_big AS SELECT n, md5(n::text) FROM generate_series(1, {BIG}) n")
    yield
    database.ask("DROP TABLE sec_big")
    # Make a second backup, because the first backup without the large table fails as less than half of the earlier
    # size.
    droplet.run("stackctl backup")
    droplet.check_output("stackctl backup")
    assert (problems(droplet), leftovers(droplet)) == ([], "")


@pytest.fixture
def database(lab: Environment, database: Database) -> Iterator[Database]:
    made = f"""
    CREATE TABLE sec_near AS SELECT n FROM generate_series(1, {ROWS}) n;
    CREATE TABLE sec_days (n int) PARTITION BY LIST (n);
    CREATE TABLE sec_days_1 PARTITION OF sec_days FOR VALUES IN (1);
    INSERT INTO sec_days VALUES (1);
    """
    database.ask(made)
    yield database
    database.ask("DROP TABLE IF EXISTS sec_near, sec_days")


def at_once(database: Database, sql: str) -> subprocess.Popen[str]:
    """Start a statement without waiting for it."""
    session = subprocess.Popen(
        database.over_ssh(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert session.stdin
    session.stdin.write(sql)
    session.stdin.close()
    session.stdin = None
    return session


def test_a_table_that_is_reloaded_all_the_time_is_whole_in_each_backup(droplet: Host, database: Database) -> None:
    job = "\n".join(f"{RELOAD}\nSELECT pg_sleep(0.7);" for _ in range(300))
    reloading = at_once(database, job)
    before = {one["id"] for one in backups(droplet)}
    try:
        for _ in range(3):
            droplet.check_output("stackctl backup")
    finally:
        assert reloading.poll() is None, "the job ended early, so the test proves nothing"
        database.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.7)%'"
            " AND pid <> pg_backend_pid()",
            "postgres",
        )
        said, _ = reloading.communicate(timeout=30)
    assert "deadlock" not in said, "PostgreSQL ended the app's transaction because of a deadlock"
    made = [one for one in backups(droplet) if one["id"] not in before]
    assert [one["tables"]["public.sec_near"] for one in made] == [ROWS] * 3


def test_a_snapshot_without_locks_sees_empty_tables(database: Database) -> None:
    """Control: without locks, as in earlier versions, a backup counts and dumps empty tables."""
    with subprocess.Popen(
        database.over_ssh(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as older:
        assert older.stdin
        assert older.stdout
        older.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();\n")
        older.stdin.flush()
        assert older.stdout.readline()
        database.ask(RELOAD)
        older.stdin.write("SELECT count(*) FROM sec_near;\n")
        older.stdin.close()
        assert older.stdout.read().strip() == "0"


@pytest.mark.parametrize("what", DURING)
@pytest.mark.parametrize("after", [0.3, 1.0])
def test_changes_of_a_table_during_a_dump_wait_for_its_end(
    droplet: Host, database: Database, what: str, after: float
) -> None:
    before = {one["id"] for one in backups(droplet)}
    asked = UnderWay(("backup",), program=under_way.BACKUP)
    asked.reach("dump")
    time.sleep(after)
    changing = at_once(database, f"{DURING[what]};")
    code, output = asked.end()
    assert code == 0, output
    said, _ = changing.communicate(timeout=60)
    assert (changing.returncode, said.strip()) == (0, "")
    (made,) = [one for one in backups(droplet) if one["id"] not in before]
    assert made["tables"].get("public.sec_near", "dropped") in {ROWS, "dropped" if what == "drop" else ROWS}
    assert made["tables"]["public.sec_big"] == BIG


def test_a_table_that_is_held_for_some_seconds_is_waited_for(droplet: Host, database: Database) -> None:
    holding = at_once(database, "BEGIN; LOCK TABLE sec_near; SELECT pg_sleep(8); COMMIT;")
    time.sleep(1)
    began = time.monotonic()
    droplet.check_output("stackctl backup")
    assert time.monotonic() - began > 6
    holding.communicate(timeout=30)
    assert backups(droplet)[-1]["tables"]["public.sec_near"] == ROWS
