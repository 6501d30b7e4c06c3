"""Errors of PostgreSQL and its drivers are shown without the rows that they contain."""
# ruff: noqa: S608 - no program runs the SQL in these texts

from __future__ import annotations

import pytest

from stackctl.core.postgres_errors import reason, without_rows
from stackctl.core.program import Result

PHONE, NAME = "+380441234567", "Olena"
OF_A_RESTORE = f"""pg_restore: error: COPY failed for table "a_customers": ERROR:  relation "z" does not exist
LINE 1: SELECT EXISTS (SELECT FROM z WHERE name = $1)
                                   ^
QUERY:  SELECT EXISTS (SELECT FROM z WHERE name = $1)
 AND '{NAME}' <> ''
CONTEXT:  SQL function "is_category" during inlining
COPY a_customers, line 1: "1\t{NAME}\t{PHONE}\tLviv"
"""
SAID = {
    "pg_restore": (OF_A_RESTORE, 'COPY failed for table "a_customers": ERROR:  relation "z" does not exist'),
    "psql": (
        f'ERROR:  duplicate key value violates unique constraint "users_phone"\nDETAIL:  Key (phone)=({PHONE}) exists.',
        'ERROR:  duplicate key value violates unique constraint "users_phone"',
    ),
    "a row of several lines": (
        'ERROR:  new row for relation "t" violates check constraint "c"\n'
        f"DETAIL:  Failing row contains (1, a\n{NAME}).",
        'new row for relation "t" violates check constraint "c"',
    ),
    "a value": (f'ERROR:  invalid input syntax for type integer: "{NAME}"', "invalid input syntax for type integer"),
    "a value by a driver": (f'asyncpg.DataError: invalid input syntax for type uuid: "{NAME}"', "syntax for type uuid"),
    "a value with quotes in it": (
        f'ERROR:  invalid input syntax for type integer: "12" {NAME} {PHONE} 34"',
        "invalid input syntax for type integer",
    ),
    "a value of several lines": (
        f'ERROR:  invalid input value for enum mood: "x\n{NAME}\n{PHONE}"\npsql:<stdin>:2: ERROR:  another one',
        "another one",
    ),
    "a time with quotes in it": (f'ERROR:  date/time field value out of range: "a" {NAME} "b"', "value out of range"),
    "an array of several lines": (f'ERROR:  malformed array literal: "{{a\n{NAME}}}"', "malformed array literal"),
    "pg_dump": (
        'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.\n'
        "pg_dump: detail: Error message from server: ERROR:  invalid page in block 7 of relation base/5/16384\n"
        f"pg_dump: detail: Command was: COPY public.t (n) TO stdout; -- {NAME}",
        "ERROR:  invalid page in block 7 of relation base/5/16384",
    ),
    "the server's log": (
        '2026-11-29 10:00:00.1 UTC [77] ERROR:  duplicate key value violates unique constraint "a"\n'
        f"2026-11-29 10:00:00.1 UTC [77] DETAIL:  Key (p)=({PHONE}) exists.\n"
        f"2026-11-29 10:00:00.1 UTC [77] STATEMENT:  insert\n\tinto t values ('{NAME}')\n"
        "2026-11-29 10:00:00.2 UTC [77] LOG:  ready",
        "LOG:  ready",
    ),
    "SQLAlchemy": (
        "sqlalchemy.exc.IntegrityError: (psycopg.errors.UniqueViolation) duplicate key value violates "
        f'unique constraint "u"\nDETAIL:  Key (phone)=({PHONE}) already exists.\n[SQL: INSERT INTO users]\n'
        f"[parameters: {{'name': '{NAME}'}}]",
        "UniqueViolation",
    ),
    "node-postgres": (
        f"error: duplicate key value\n  detail: 'Key (phone)=({PHONE}) already exists.',\n  code: '23505'",
        "duplicate key value",
    ),
    "a line of JSON": (
        '{"level": "error", "message": "duplicate key value\\nDETAIL:  Key (phone)=(' + PHONE + ') exists."}',
        "duplicate key value",
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_a_row_is_not_repeated_and_the_error_is(said: str) -> None:
    text, wanted = SAID[said]
    shown = without_rows(text)
    assert wanted in shown
    for row in (PHONE, NAME):
        assert row not in shown
    ran = Result(1, stderr=text)
    for row in (PHONE, NAME):
        assert row not in ran.reason + ran.tail()


def test_the_reason_is_the_error_and_not_what_comes_after_it() -> None:
    assert Result(1, stderr=OF_A_RESTORE).reason.endswith('ERROR:  relation "z" does not exist')
    hint = 'ERROR:  out of shared memory\nHINT:  You might need to increase "max_locks_per_transaction".'
    assert Result(1, stderr=hint).reason == "ERROR:  out of shared memory"
    ignored = (
        "pg_restore: error: could not execute query: ERROR:  no\npg_restore: warning: errors ignored on restore: 1"
    )
    assert Result(1, stderr=ignored).reason == "pg_restore: error: could not execute query: ERROR:  no"
    dumped = SAID["pg_dump"][0]
    assert "invalid page in block 7" in Result(1, stderr=dumped).reason
    assert reason("timed out after 60 s") is None


def test_names_stay() -> None:
    said = 'ERROR:  permission denied to create extension "x" in schema "y": unacceptable schema name "pg_catalog"'
    assert without_rows(said) == said


def test_what_is_not_postgresqls_stays_as_it_is() -> None:
    log = 'Error response from daemon: container "x" is not running\n\n{"a": "b"}\nLine 7: a message, "in quotes"'
    assert without_rows(log) == log
    assert Result(1, stderr="first\nlast").reason == "last"
