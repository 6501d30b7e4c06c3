"""The app's roles cannot influence our sessions. A dump's tables and counts are from the same moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackctl.core.config import Data
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from stackctl.host import roles
from stackctl.services.docker import Docker
from stackctl.services.postgres import OF_SUPERUSER, SESSION, Postgres, session
from stackctl.services.postgres_snapshot import LOCK_TIMEOUT_S, Table
from tests.support.fakes.droplet import CONFIG, Droplet, installed, stackctl

OFFLINE = {"pg_restore", "pg_isready"}
"""Programs that connect to no database."""


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    droplet.calls.clear()
    return droplet


def postgres(droplet: Droplet) -> Postgres:
    return Postgres(Docker(droplet), droplet.paths, Data(**CONFIG["data"]))


def asked(droplet: Droplet) -> list[str]:
    return [" ".join(call) for call in droplet.calls]


# sessions


def test_every_program_beside_postgresql_gets_our_settings_first(live: Droplet) -> None:
    """To prevent attack S1, psql, pg_dump and other programs get our settings in the live and the throwaway server."""
    assert stackctl(live, "backup")[0] == 0
    assert stackctl(live, "amcheck")[0] == 0
    beside = [call for call in live.calls if call[:5] == ["docker", "exec", "-i", "--user", "postgres"]]
    assert {"psql", "pg_dump", "pg_dumpall", "pg_amcheck", "bash"} == {call[10] for call in beside} - OFFLINE
    as_role = {"stackctl_reader": SESSION, "stackctl_restore": SESSION | {"role": "owner"}, "postgres": OF_SUPERUSER}
    for call in beside:
        (who,) = {word.removeprefix("--username=") for word in call if word.startswith("--username=")} or {"postgres"}
        wanted = session(as_role[who])
        assert call[5:9] == ["--env", "PGAPPNAME=stackctl-backup", "--env", f"PGOPTIONS={wanted}"]
        if call[10] == "psql":
            assert {"-qtAX", "ON_ERROR_STOP=1", "VERBOSITY=terse", "SHOW_CONTEXT=never"} <= set(call)


def test_the_settings_are_those_that_change_what_we_ask() -> None:
    assert SESSION["search_path"] == "pg_catalog,pg_temp", "unless pg_temp is named, PostgreSQL searches it first"
    assert (SESSION["role"], SESSION["row_security"]) == ("none", "off")
    for timeout in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert SESSION[timeout] == "0"
    assert session({"a": "read committed", "b": ""}) == "-c a=read\\ committed -c b="


def test_the_superuser_asks_nothing_in_the_apps_database(live: Droplet) -> None:
    """The superuser runs no query in the app's database.

    As superuser, only `pg_dump` and `pg_amcheck`, which protect themselves, connect to the app's database.
    """
    assert stackctl(live, "backup")[0] == 0
    assert stackctl(live, "status")[0] == 0
    in_there = [call for call in live.ran("--dbname=app") if "--username=postgres" in call]
    assert {call[10] for call in in_there} == {"pg_dump"}


def test_what_is_counted_is_read_by_copy_as_a_role_that_can_change_nothing(live: Droplet) -> None:
    """Rows are read with `COPY`, because the planner may run functions of the app for a `SELECT count(*)`."""
    assert stackctl(live, "backup")[0] == 0
    assert not [line for line in asked(live) if "count(*) FROM ONLY" in line]
    sessions = [call for call in live.calls if call[-2] == "--username=stackctl_reader"]
    assert len(sessions) == 2, "one session must be in the live database, and one in the restored database"
    made = live.ran("CREATE ROLE stackctl_reader")
    assert made
    assert all("PASSWORD NULL VALID UNTIL '-infinity'" in call[-1] and "NOSUPERUSER" in call[-1] for call in made)


def test_names_are_quoted() -> None:
    table = Table(1, 'a"b', 'c;\nDROP "x', 'd"', counted=True)
    assert table.quoted == '"a""b"."c;\nDROP ""x"'
    assert table.key == 'a"b.c;\nDROP "x'


def test_two_tables_with_one_key_are_refused_before_anything_is_dumped(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tables with the same key are refused, because the manifest lists row counts by key."""
    pair = (Table(1, "a", "b.c", "id", counted=True), Table(2, "a.b", "c", "id", counted=True))
    monkeypatch.setattr("stackctl.services.postgres_snapshot._tables", lambda _: pair)
    with pytest.raises(
        FailedError,
        match=r'"a"\."b\.c" and "a\.b"\."c" would have the same name in a manifest: a\.b\.c\. .*Next: rename',
    ):
        postgres(live).dump(live.paths.var / "dump", 60)
    assert not live.ran("pg_dump ")


def test_a_table_that_is_not_counted_has_no_key(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is not counted, such as the parent of partitions or a table of an extension, has no key."""
    pair = (Table(1, "public", "offers", "id", counted=True), Table(2, "public", "offers", "id", counted=False))
    monkeypatch.setattr("stackctl.services.postgres_snapshot._tables", lambda _: pair)
    assert postgres(live).dump(live.paths.var / "dump", 60) == {"public.offers": 12}


# one moment


def test_all_tables_are_locked_before_the_snapshot_is_taken(live: Droplet) -> None:
    """A dump locks all tables before it takes its PostgreSQL snapshot (R1, F5).

    After a `TRUNCATE`, which is not MVCC-safe, an older PostgreSQL snapshot sees an empty table.
    """
    postgres(live).dump(live.paths.var / "dump", 60)
    lines = asked(live)
    begin, *_ = (n for n, line in enumerate(lines) if "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" in line)
    locks = [n for n, line in enumerate(lines) if "LOCK TABLE ONLY" in line]
    export, *_ = (n for n, line in enumerate(lines) if "pg_export_snapshot" in line)
    dump, *_ = (n for n, line in enumerate(lines) if "pg_dump " in line)
    counts = [n for n, line in enumerate(lines) if "COPY " in line]
    assert len(locks) == len(counts) == len(live.postgres.tables)
    assert [begin, *locks, export, dump, *counts] == sorted([begin, *locks, export, dump, *counts])
    for between in lines[begin + 1 : export]:
        assert between.split(maxsplit=1)[1].startswith("LOCK TABLE ONLY "), (
            "a query before the locks would take the PostgreSQL snapshot too early"
        )
    assert "SET lock_timeout = 500;" in lines[begin]
    assert "--lock-wait-timeout=2010" in lines[dump], "pg_dump's timeout must leave time for all tables"


def test_tables_that_came_meanwhile_have_it_all_again(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = live._tick

    def tick(call: list[str]) -> None:
        before(call)
        if "LOCK TABLE" in " ".join(call):
            live.postgres.tables.setdefault("public.new", 4)

    monkeypatch.setattr(live, "_tick", tick)
    assert postgres(live).dump(live.paths.var / "dump", 60) == {"public.offers": 12, "public.users": 3, "public.new": 4}
    assert len(live.ran("pg_dump ")) == 1, "pg_dump must run only after all tables are locked"
    assert len([line for line in asked(live) if "pg_export_snapshot" in line]) == 2


DISTURBANCES = {
    "a lock": ("LOCK TABLE", "ERROR:  canceling statement due to lock timeout", "public.offers can't be locked"),
    "a drop": ("LOCK TABLE", 'ERROR:  relation "public.offers" does not exist', "public.offers can't be locked"),
    "pg_dump's lock": (
        *("pg_dump ", "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout"),
        "public.users can't be dumped",
    ),
    "a view that went": ("pg_dump ", "pg_dump: error: query failed: ERROR:  cache lookup failed for view 7", ""),
}


@pytest.mark.parametrize("what", DISTURBANCES)
def test_a_dump_waits_for_another_session_s_change_of_a_table(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A dump waits until a locked table is free. If the wait takes too long, the message names the table (R4)."""
    part, said, named = DISTURBANCES[what]
    live.failing[part] = Result(1, stderr=said)
    began, patience = live.seconds, live.sleep
    with pytest.raises(FailedError) as never:
        postgres(live).dump(live.paths.var / "dump", 60)
    assert named in str(never.value)
    assert LOCK_TIMEOUT_S < live.seconds - began < 2 * LOCK_TIMEOUT_S

    def sleep(seconds: float) -> None:
        live.failing.pop(part, None)
        patience(seconds)

    live.failing[part] = Result(1, stderr=said)
    monkeypatch.setattr(live, "sleep", sleep)
    assert postgres(live).dump(live.paths.var / "dump", 60) == live.postgres.tables


def test_a_dump_gives_up_if_locking_all_tables_takes_too_long(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = live._tick

    def slow(call: list[str]) -> None:
        before(call)
        if "LOCK TABLE" in " ".join(call):
            live.seconds += LOCK_TIMEOUT_S + 1

    monkeypatch.setattr(live, "_tick", slow)
    with pytest.raises(FailedError, match="not all tables are locked after 120 s"):
        postgres(live).dump(live.paths.var / "dump", 60)
    assert not live.ran("pg_dump ")


def test_what_is_broken_is_not_tried_again(live: Droplet) -> None:
    live.failing["pg_dump "] = Result(1, stderr="pg_dump: error: query failed: ERROR:  invalid page in block 7")
    with pytest.raises(FailedError, match="invalid page in block 7"):
        postgres(live).dump(live.paths.var / "dump", 60)
    assert len(live.ran("pg_dump ")) == 1
    assert live.ran("pg_terminate_backend"), "pg_dump may still run after docker exec ended (docker/cli #5309)"


def test_a_counting_that_fails_names_the_table(live: Droplet) -> None:
    live.failing["COPY "] = Result(1, stderr="ERROR:  invalid page in block 7 of relation base/5/16384")
    with pytest.raises(FailedError, match=r"public\.offers can't be counted: ERROR:  invalid page"):
        postgres(live).dump(live.paths.var / "dump", 60)


def test_no_password_is_in_what_is_kept_of_roles(live: Droplet) -> None:
    """The dump of roles has neither passwords nor PostgreSQL's verifiers of passwords (B6)."""
    postgres(live).globals(live.paths.var / "globals.sql", 60)
    (asked_for,) = live.ran("pg_dumpall")
    assert {"--globals-only", "--no-role-passwords"} <= set(asked_for)


# roles


def test_only_login_roles_of_ours_that_nothing_needs_are_dropped(live: Droplet) -> None:
    """stackctl drops its own login roles that nothing needs.

    Each role first loses its login, because `DROP ROLE` may fail (F1).
    """
    live.postgres.logins |= {"owner_0000000a", "owner_0000000b"}
    postgres(live).forget_logins({"owner_00000001", "owner_0000000b"})
    assert live.postgres.logins == {"owner_00000001", "owner_0000000b"}
    about = [line for line in asked(live) if "owner_0000000a" in line]
    assert 'ALTER ROLE "owner_0000000a" NOLOGIN PASSWORD NULL; SELECT pg_terminate_backend(pid)' in about[0]
    assert not [line for line in asked(live) if "owner_reporting" in line or "other_00000001" in line]


def test_a_login_s_objects_are_searched_in_every_database(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login role's objects are removed from every database.

    With an object left, the role and its password would stay.
    """
    answer = live.postgres.sql
    monkeypatch.setattr(
        live.postgres, "sql", lambda sql: Result(0, "app\npostgres") if "FROM pg_shdepend" in sql else answer(sql)
    )
    live.postgres.logins.add("owner_0000000a")
    postgres(live).forget_logins({"owner_00000001"})
    reassigned = [call for call in live.calls if call[-1].startswith("REASSIGN OWNED")]
    assert [call[-3] for call in reassigned] == ["--dbname=app", "--dbname=postgres", "--dbname=postgres"]


def accept(live: Droplet, name: str) -> None:
    document = json.loads(live.paths.declared.read_text())
    live.paths.declared.write_text(json.dumps(document | {"accepted": {name: "it watches"}}))


def test_a_role_with_undeclared_powers_is_foreign(live: Droplet) -> None:
    """A role with undeclared powers is foreign, so the plan reports the role unless the operator has accepted it."""
    live.postgres.roles = [
        ["role", "stackctl_reader", ["bypassrls", "member of pg_read_all_data"]],
        ["role", "owner", []],
        ["role", "sec_backdoor", ["superuser", "member of pg_monitor"]],
        ["setting", "app", ["search_path=public, pg_catalog"]],
        ["setting", "owner_00000001", ["role=owner"]],
    ]
    code, shown = stackctl(live, "status")
    assert "postgres-role:sec_backdoor: this PostgreSQL role has undeclared powers" in shown
    assert "undeclared powers: member of pg_monitor, superuser (" in shown
    assert "app: search_path=public, pg_catalog" in shown
    assert code == 4
    document, _ = json.JSONDecoder().raw_decode(stackctl(live, "status", "--json")[1])
    assert document["database_settings"] == ["app: search_path=public, pg_catalog"]
    assert [(one["name"], one["remedy"]) for one in document["foreign"]] == [("postgres-role:sec_backdoor", "hand")]
    accept(live, "postgres-role:sec_backdoor")
    assert stackctl(live, "status")[0] == 0


def test_an_accepted_role_is_gone_only_when_postgresql_said_so(live: Droplet) -> None:
    accept(live, "postgres-role:monitor")
    assert "postgres-role:monitor, which the droplet no longer has" in stackctl(live, "status")[1]
    live.failing["json_build_array('role'"] = Result(1, stderr="FATAL:  the database system is starting up")
    assert "which the droplet no longer has" not in stackctl(live, "status")[1]


def test_more_than_the_reader_needs_is_told_as_well(live: Droplet) -> None:
    live.postgres.roles = [["role", "stackctl_reader", ["bypassrls", "member of pg_read_all_data", "superuser"]]]
    (found,) = roles.look(postgres(live).server, "app").undeclared
    assert "undeclared powers: superuser (" in found.what


def test_a_name_may_be_anything(live: Droplet) -> None:
    live.postgres.roles = [["role", "\x1b[31mx\u202e", ["superuser"]]]
    (found,) = roles.look(postgres(live).server, "app").undeclared
    assert found.name.isprintable()


def test_a_postgresql_that_does_not_answer_is_a_problem(live: Droplet) -> None:
    live.failing["json_build_array('role'"] = Result(1, stderr="FATAL:  the database system is starting up")
    code, shown = stackctl(live, "status")
    assert (code, "the check of PostgreSQL's roles failed" in shown) == (4, True)
