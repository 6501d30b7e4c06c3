"""The right roles load the right parts of a dump. The tests use pg_restore's output for a database with odd names."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stackctl.backup import loading, roles
from stackctl.backup.contents import LIVE_ONES, Contents
from stackctl.backup.loading import Load
from stackctl.backup.roles import LOADER
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.program import ENVIRONMENT, Result
from stackctl.services.docker import Docker
from stackctl.services.postgres import Server

LISTED = """\
;
; Archive created at 2026-11-29 16:03:51 UTC
3769; 1262 16388 DATABASE - app postgres
3770; 0 0 ACL - DATABASE app postgres
3771; 0 0 DATABASE PROPERTIES - app postgres
10; 2615 16420 SCHEMA - fdw postgres
11; 2615 17212 SCHEMA - odd schema owner
9; 2615 2200 SCHEMA - public owner
4; 3079 16441 EXTENSION - citext 
3773; 0 0 COMMENT - EXTENSION citext 
3; 3079 16421 EXTENSION - postgres_fdw 
3775; 0 0 COMMENT - EXTENSION postgres_fdw 
3780; 0 0 ACL public FUNCTION dblink_connect_u(text) postgres
234; 1255 16438 FUNCTION public ev() postgres
3785; 0 0 ACL public FUNCTION ev() postgres
2432; 1417 16428 SERVER - s1 postgres
3776; 0 0 ACL - FOREIGN SERVER s1 postgres
228; 1259 17213 TABLE odd schema t x owner
222; 1259 16429 FOREIGN TABLE public ft postgres
3778; 0 0 COMMENT public FOREIGN TABLE ft postgres
3779; 0 0 ACL public TABLE ft postgres
223; 1259 16435 TABLE public fti keeper
226; 1259 17197 TABLE public my table owner
3781; 0 0 ACL public TABLE "my table" owner
3762; 2613 4242 BLOB - 4242 keeper
3757; 0 16435 TABLE DATA public fti keeper
3753; 6104 16440 PUBLICATION - allp postgres
3754; 6104 17205 PUBLICATION - mine owner
2433; 826 17204 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES owner
2434; 826 17205 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES postgres
3604; 3466 16439 EVENT TRIGGER - et postgres
"""  # noqa: W291 - pg_restore's own
LOADED = ("11", "9", "4", "234", "3785", "228", "223", "226", "3781", "3762", "3757", "3754", "2433")
SCHEMA = """\
ALTER DATABASE app OWNER TO postgres;
ALTER DATABASE app SET work_mem TO '5MB';
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
CREATE EXTENSION IF NOT EXISTS postgres_fdw WITH SCHEMA fdw;
ALTER FUNCTION public.ev() OWNER TO postgres;
ALTER SERVER s1 OWNER TO postgres;
ALTER TABLE public.fti OWNER TO keeper;
ALTER TABLE public."my table" OWNER TO owner;
CREATE PUBLICATION allp FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate');
GRANT CREATE,CONNECT ON DATABASE app TO owner;
GRANT SELECT ON TABLE public."my table" TO "app reader";
"""
ROLES = """\
CREATE ROLE "app reader";
ALTER ROLE "app reader" WITH SUPERUSER LOGIN PASSWORD 'x';
CREATE ROLE keeper;
CREATE ROLE owner;
CREATE ROLE postgres;
CREATE ROLE unused;
GRANT postgres TO keeper;
"""


@dataclass
class Programs(Machine):
    """A stand-in for PostgreSQL's programs that records each call."""

    listed: str = LISTED
    schema: str = SCHEMA
    answers: dict[str, str] = field(
        default_factory=lambda: {"NOT v.trusted": "postgres_fdw\ndblink", "rolname": "owner"}
    )
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Each query with the role that ran the query."""

    def run(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENVIRONMENT,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        if "--list" in argv or "--schema-only" in argv:
            return Result(0, self.listed if "--list" in argv else self.schema)
        who = next(word for word in argv if word.startswith("--username=")).removeprefix("--username=")
        self.asked.append((who, " ".join(argv[argv.index("bash") :]) if "bash" in argv else argv[-1]))
        return Result(0, next((said for part, said in self.answers.items() if part in argv[-1]), ""))

    def by(self, who: str) -> list[str]:
        return [what for asked_by, what in self.asked if asked_by == who]


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def load(tmp_path: Path, programs: Programs) -> Load:
    (tmp_path / "globals.sql").write_text(ROLES)
    (tmp_path / "postgres.dump").write_text("")
    server = Server(Docker(programs), "postgres")
    return Load(server, "app_restoring", "owner", tmp_path / "postgres.dump", tmp_path / "globals.sql", 60)


def test_objects_that_only_a_superuser_creates_are_left_out_and_named(load: Load) -> None:
    contents = load.contents()
    assert contents.entries == LOADED
    assert sorted(contents.told) == sorted(
        [
            LIVE_ONES,
            "privileges on FUNCTION dblink_connect_u(text) are left out, because an extension has created it",
            "server s1 is left out, because only a superuser may create it",
            "foreign table ft is left out, because only a superuser may create it",
            "publication allp is left out, because only a superuser may create it",
            "default privileges of postgres are left out",
            "event trigger et is left out, because only a superuser may create it",
            "objects of postgres (1) will belong to owner",
            "extension postgres_fdw will belong to the superuser, because only a superuser may create it",
            "role app reader is created without login, password or membership",
            "role keeper is created without login, password or membership",
        ]
    )
    assert (contents.extensions, contents.roles) == ((("postgres_fdw", "fdw"),), ("app reader", "keeper"))
    assert contents.owners == (("TABLE", "public.fti", "keeper"), ("LARGE OBJECT", "4242", "keeper"))


def test_a_plain_dump_has_nothing_to_tell(load: Load, programs: Programs) -> None:
    """The privileges that the site itself grants on the database are no finding."""
    programs.schema = (
        "GRANT ALL ON DATABASE app TO owner;\nGRANT CONNECT ON DATABASE app TO stackctl_reader;\n"
        "ALTER TABLE public.offers OWNER TO owner;\n"
    )
    programs.listed = "3770; 0 0 ACL - DATABASE app postgres\n7; 1259 1 TABLE public offers owner\n"
    assert load.contents() == Contents(("7",), (), (), (), ())


@pytest.mark.parametrize(
    "line", ["REVOKE CONNECT ON DATABASE app FROM PUBLIC;", "GRANT CONNECT ON DATABASE app TO ada;"]
)
def test_privileges_of_the_database_are_told(load: Load, programs: Programs, line: str) -> None:
    programs.schema = f"{line}\n"
    programs.listed = "3770; 0 0 ACL - DATABASE app postgres\n"
    assert load.contents().told == (LIVE_ONES,)


HOSTILE = [
    "CREATE ROLE x NOLOGIN; COPY (SELECT 1) TO PROGRAM 'id > /tmp/x';",
    "CREATE ROLE x; DROP DATABASE app;",
    'CREATE ROLE "x""; DROP DATABASE app; --";',
    "CREATE ROLE pg_read_all_data;",
    f"CREATE ROLE {LOADER};",
    "CREATE ROLE " + "x" * 64 + ";",
    "ALTER ROLE x NOLOGIN; COPY (SELECT 1) TO PROGRAM 'id > /tmp/x'; --",
    "\\! id",
]


@pytest.mark.parametrize("line", HOSTILE)
def test_no_line_of_globals_sql_is_run_and_no_such_role_is_made(load: Load, programs: Programs, line: str) -> None:
    load.roles.write_text(f"{line}\n")
    programs.schema = 'GRANT SELECT ON TABLE t TO x;\nGRANT SELECT ON TABLE t TO "x""; DROP DATABASE app; --";\n'
    programs.schema += f"GRANT SELECT ON TABLE t TO pg_read_all_data, {'x' * 64}, {LOADER};\n"
    contents = load.contents()
    load.strictly(contents)
    assert contents.roles == ()
    assert not [said for said in programs.by("postgres") if "PROGRAM" in said or "DROP DATABASE" in said]


def test_roles_get_no_power_and_those_that_are_there_stay_as_they_are(load: Load, programs: Programs) -> None:
    programs.answers["rolname"] = "owner\nkeeper"
    load.strictly(load.contents())
    (made,) = [said for said in programs.by("postgres") if said.startswith("CREATE ROLE")]
    assert made == 'CREATE ROLE "app reader" NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS'
    assert not [said for said in programs.by("postgres") if "GRANT" in said and "keeper" in said]


def test_pg_restore_and_analyze_are_the_loader_s(load: Load, programs: Programs) -> None:
    load.strictly(load.contents())
    loaded, analyzed = programs.by(LOADER)
    assert "--no-owner --no-tablespaces --exit-on-error" in loaded
    assert loaded.endswith(" ".join(load.contents().entries))
    assert analyzed == "ANALYZE"
    assert not [said for said in programs.by("postgres") if "pg_restore" in said or "ANALYZE" in said]


def test_nobody_else_is_let_into_the_database_before_it_is_whole(load: Load, programs: Programs) -> None:
    load.strictly(load.contents())
    asked = programs.by("postgres")
    made = next(place for place, said in enumerate(asked) if said.startswith("CREATE DATABASE"))
    assert asked[made] == 'CREATE DATABASE "app_restoring" TEMPLATE template0 CONNECTION LIMIT 0'
    assert 'REVOKE ALL ON DATABASE "app_restoring" FROM PUBLIC' in asked[made + 1]
    assert re.findall("GRANT CONNECT [^;]* TO ([^;]*);", asked[made + 1]) == [LOADER]


def test_an_untrusted_extension_is_made_while_there_is_nothing_but_it(load: Load, programs: Programs) -> None:
    load.strictly(load.contents())
    made = next(place for place, (_, said) in enumerate(programs.asked) if "CREATE EXTENSION" in said)
    assert LOADER not in [who for who, _ in programs.asked[:made]]
    assert 'CREATE EXTENSION "postgres_fdw" SCHEMA "fdw" CASCADE' in programs.asked[made][1]
    assert 'CREATE SCHEMA IF NOT EXISTS "fdw" AUTHORIZATION "owner"' in programs.asked[made][1]


def test_the_extension_of_the_weekly_look_needs_no_schema_of_its_own(load: Load, programs: Programs) -> None:
    """pg_amcheck --install-missing creates the extension amcheck in pg_catalog of the app's database."""
    programs.listed = "4; 3079 16441 EXTENSION - amcheck \n"
    programs.schema = "CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA pg_catalog;\n"
    programs.answers["NOT v.trusted"] = "amcheck"
    load.strictly(load.contents())
    (made,) = [said for _, said in programs.asked if "CREATE EXTENSION" in said]
    assert 'CREATE EXTENSION "amcheck" SCHEMA "pg_catalog" CASCADE' in made
    assert "CREATE SCHEMA" not in made


@pytest.mark.parametrize(("plain", "given"), [("keeper", 1), ("", 0)])
def test_objects_return_to_their_owner_if_it_has_no_power(
    load: Load, programs: Programs, plain: str, given: int
) -> None:
    the_owners = '["SCHEMA", "x"]\n["public", "fti"]\n["LARGE OBJECT", "4242"]'
    programs.answers = {"rolcanlogin": plain, "lomowner": the_owners, **programs.answers}
    load.strictly(load.contents())
    said = "\n".join(programs.by("postgres"))
    assert said.count('ALTER TABLE public.fti OWNER TO "keeper"; ALTER LARGE OBJECT 4242 OWNER TO "keeper"') == given
    assert "OWNER TO postgres" not in said
    assert 'OWNER TO "postgres"' not in said


def test_nothing_of_postgresql_s_own_is_given_away(load: Load, programs: Programs) -> None:
    """A load never changes the owner of `pg_catalog`, because that owner controls each session of a superuser."""
    programs.answers = {"rolcanlogin": "keeper", "lomowner": '["public", "my \\"t"]', **programs.answers}
    programs.schema = (
        "ALTER SCHEMA pg_catalog OWNER TO keeper;\nALTER VIEW pg_catalog.pg_roles OWNER TO keeper;\n"
        'ALTER TABLE pg_roles OWNER TO keeper;\nALTER TABLE public."my ""t" OWNER TO keeper;\n'
    )
    load.strictly(load.contents())
    given = [said for said in programs.by("postgres") if "OWNER TO" in said and "SCHEMA public" not in said]
    assert given == ['ALTER TABLE public."my ""t" OWNER TO "keeper"']


def test_an_extension_is_made_for_the_table_of_contents_and_not_for_a_line_of_a_function(
    load: Load, programs: Programs
) -> None:
    line = "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA elsewhere;\n"
    programs.schema += line.format("dblink") + line.format("postgres_fdw")
    assert load.contents().extensions == (("postgres_fdw", "fdw"),)


def test_the_time_to_read_a_dump_grows_linearly(load: Load, programs: Programs) -> None:
    """A quadratic pattern or a search for each name would take weeks for a line of 64 MiB."""
    load.roles.write_text("".join(f"CREATE ROLE r{number};\n" for number in range(100_000)))
    programs.schema = "GRANT " + " ON DATABASE " * 30_000 + " TO x" * 30_000 + "\n"
    began = time.process_time()
    assert load.contents().roles == ()
    assert time.process_time() - began < 5


def test_a_line_ends_where_pg_restore_ends_it(load: Load, programs: Programs) -> None:
    """Only a line feed ends a line, because a name may contain U+2028 or similar characters."""
    programs.listed = "7; 1259 1 TABLE public a\u2028666; 1259 1 TABLE public b owner\n"
    programs.schema = "ALTER TABLE public.a\u2028ALTER TABLE public.b OWNER TO keeper;\n"
    programs.answers["contype"] = json.dumps(["drop", "add '\u2028'", "validate"], ensure_ascii=False)
    contents = load.contents()
    assert (contents.entries, contents.owners) == (("7",), ())
    assert load.as_far_as_possible(contents) == []
    assert "SET search_path = public; add '\u2028'" in programs.by(LOADER)


def test_nothing_of_a_dump_becomes_a_superuser_s(load: Load, programs: Programs) -> None:
    """No object of a dump gets a superuser as owner.

    Otherwise, a function with SECURITY DEFINER would run as superuser.
    """
    programs.schema = "ALTER TABLE public.t OWNER TO postgres;\nALTER FUNCTION public.f() OWNER TO keeper;\n"
    assert load.contents().owners == (("LARGE OBJECT", "4242", "keeper"),)


def test_a_schema_without_end_is_not_read_to_its_end(
    load: Load, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MOST_BYTES", 100)
    with pytest.raises(FailedError, match=r"postgres\.dump has a schema of more than"):
        load.contents()
    monkeypatch.undo()
    monkeypatch.setattr(roles, "MOST_ROLES", 1)
    with pytest.raises(FailedError, match="names more than 1 roles"):
        load.contents()


def test_settings_and_privileges_are_the_live_database_s(load: Load, programs: Programs) -> None:
    load.as_live("app")
    (said,) = programs.by("postgres")
    assert "aclexplode" in said
    assert "datname = 'app'" in said
    assert "rolsuper" in said
    assert "INSERT INTO pg_catalog.pg_db_role_setting" in said
    assert "SET %" not in said  # no setting of the dump may apply to our own session
    assert "set_config" not in said
