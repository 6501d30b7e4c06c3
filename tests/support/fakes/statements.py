"""Patterns of the SQL that the superuser runs. The fake PostgreSQL refuses every statement that fits no pattern."""

# ruff: noqa: S608

from __future__ import annotations

import re

NAME = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
OF_SESSIONS = (
    r"(?:datname IN \('\w+'(?:, '\w+')*\)|usename = '\w+'|application_name = '[\w-]+' AND pid <> pg_backend_pid\(\))"
)
PLAIN_ROLES = """SELECT rolname FROM pg_catalog.pg_roles r WHERE NOT (rolsuper OR rolcanlogin OR rolcreaterole OR
 rolcreatedb OR rolreplication OR rolbypassrls) AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE
 member = r.oid)"""
POWERLESS = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
KNOWN = [
    # questions
    r"SELECT current_setting\('server_version_num'\)::int / 10000, current_setting\('max_connections'\)::int - "
    r"current_setting\('superuser_reserved_connections'\)::int - count\(\*\), pg_database_size\('\w+'\) "
    r"FROM pg_stat_activity WHERE backend_type = 'client backend'",
    r"SELECT rolname FROM (?:pg_catalog\.)?pg_roles",
    re.escape(" ".join(PLAIN_ROLES.split())),
    r"SELECT json_build_array\('role', r\.rolname, .+",
    r"SELECT datname FROM pg_database",
    r"SELECT shobj_description\(oid, 'pg_database'\) FROM pg_database WHERE datname = '\w+'",
    r"""SELECT DISTINCT datname FROM pg_shdepend s JOIN pg_database d ON d\.oid = s\.dbid WHERE s\.refobjid = '"\w+"'"""
    r"::regrole AND datallowconn",
    r"SELECT e\.name FROM pg_catalog\.pg_available_extensions e JOIN pg_catalog\.pg_available_extension_versions v "
    r"ON v\.name = e\.name AND v\.version = e\.default_version WHERE v\.superuser AND NOT v\.trusted",
    r"SELECT pg_catalog\.json_build_array\('SCHEMA', nspname\) FROM .+",
    r"SHOW server_version",
    # statements for sessions and transactions
    rf"SELECT (?:pg_catalog\.)?pg_terminate_backend\(pid\) FROM (?:pg_catalog\.)?pg_stat_activity WHERE {OF_SESSIONS}",
    r"BEGIN|COMMIT|DO",
    # statements for roles
    rf"CREATE ROLE {NAME} NOLOGIN {POWERLESS}",
    rf"ALTER ROLE {NAME} LOGIN {POWERLESS} INHERIT CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL '-infinity'",
    rf"ALTER ROLE {NAME} (?:NOLOGIN|NOLOGIN PASSWORD NULL|RESET ALL)",
    rf"GRANT {NAME} TO {NAME}",
    rf"REASSIGN OWNED BY {NAME} TO {NAME}",
    rf"DROP OWNED BY {NAME}",
    rf"DROP ROLE {NAME}",
    # statements for databases and their contents
    rf"CREATE DATABASE {NAME} TEMPLATE template0 CONNECTION LIMIT 0",
    rf"DROP DATABASE IF EXISTS {NAME} WITH \(FORCE\)",
    rf"ALTER DATABASE {NAME} (?:RENAME TO {NAME}|CONNECTION LIMIT -1)",
    rf"COMMENT ON DATABASE {NAME} IS '[^']*'",
    rf"REVOKE ALL ON DATABASE {NAME} FROM PUBLIC",
    rf"GRANT (?:CONNECT|CREATE, TEMPORARY) ON DATABASE {NAME} TO {NAME}",
    rf"ALTER SCHEMA public OWNER TO {NAME}",
    rf"CREATE SCHEMA IF NOT EXISTS {NAME} AUTHORIZATION {NAME}",
    rf"CREATE EXTENSION {NAME} SCHEMA {NAME} CASCADE",
    rf"ALTER [A-Z ]+ \S.* OWNER TO {NAME}",
]


def refuse_unknown(text: str) -> None:
    """Raise AssertionError for an unknown statement.

    The body of a `DO` statement is checked only by the lab's PostgreSQL.
    """
    bodiless = re.sub(r"DO \$\$.+?END ?\$\$", "DO", " ".join(text.split()))
    for statement in filter(None, re.split(r";(?: |$)", bodiless)):
        known = any(re.fullmatch(one, statement) for one in KNOWN)
        assert known, f"unknown to this fake, or no SQL: {statement}"
