"""Loads a backup's dump into a new database, as a role that has only the privileges of the owner.

A dump is text that the app or an intruder wrote. No part of a dump runs as superuser, because pg_restore logs in as
LOADER, which acts as the owner. CHECK constraints, defaults, index functions and generated columns, which run while
rows are loaded, also have only the owner's privileges (PostgreSQL's manual warns of such code: pg_restore, Notes). For
objects that only a superuser may create, stackctl runs its own statements, built from checked names. Other objects that
need a superuser are left out, and the operator is told what is missing.

The verification of a backup (verify.py) and a restore (restore/load.py) load a dump in the same way. Because of this, a
verified backup can be restored.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stackctl.backup import contents as dumped
from stackctl.backup import roles
from stackctl.backup.contents import Contents
from stackctl.backup.roles import IDENTIFIER, LOADER, MOST_BYTES, quoted, unquoted
from stackctl.core.errors import FailedError
from stackctl.services.postgres import ADMIN, LONG_TIMEOUT, PRIVILEGES, PSQL, SESSION, Server

SECTIONS = ("pre-data", "data", "post-data")
UNTRUSTED = """SELECT e.name FROM pg_catalog.pg_available_extensions e
 JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
 WHERE v.superuser AND NOT v.trusted"""
# A forged dump may assign an owner to PostgreSQL's own objects, such as pg_catalog, and that owner would control every
# superuser's session. So an object gets another owner only if the object belongs to the owner role, like all loaded
# objects.
THE_OWNERS = """SELECT pg_catalog.json_build_array('SCHEMA', nspname) FROM pg_catalog.pg_namespace
 WHERE nspowner = '"{owner}"'::pg_catalog.regrole
UNION ALL SELECT pg_catalog.json_build_array('LARGE OBJECT', oid::text) FROM pg_catalog.pg_largeobject_metadata
 WHERE lomowner = '"{owner}"'::pg_catalog.regrole
UNION ALL SELECT pg_catalog.json_build_array(nspname, relname) FROM pg_catalog.pg_class
 JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE relowner = '"{owner}"'::pg_catalog.regrole
UNION ALL SELECT pg_catalog.json_build_array(nspname, typname) FROM pg_catalog.pg_type
 JOIN pg_catalog.pg_namespace n ON n.oid = typnamespace WHERE typowner = '"{owner}"'::pg_catalog.regrole"""
CHECKS = """SELECT pg_catalog.json_build_array(altered || ' DROP ' || named, altered || ' ADD ' || named || ' ' ||
 pg_catalog.pg_get_constraintdef(oid) || ' NOT VALID', altered || ' VALIDATE ' || named)
 FROM (SELECT oid, pg_catalog.format('ALTER TABLE %s', conrelid::pg_catalog.regclass) AS altered,
  pg_catalog.format('CONSTRAINT %I', conname) AS named FROM pg_catalog.pg_constraint
  WHERE contype = 'c' AND conrelid <> 0 AND conislocal AND connamespace::pg_catalog.regnamespace::text
  NOT IN ('pg_catalog', 'information_schema')) AS checks"""
# Settings are copied as rows of a catalog, and never set in a session. The owner may have left a setting that would
# stop the load (transaction_read_only), or a setting that fits only one database (default_text_search_config). Only
# settings of a database that belongs to a superuser are copied. Settings of login roles are not copied.
AS_LIVE = """DO $$ DECLARE one record; BEGIN
 EXECUTE pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC, %I', '{new}', '{owner}');
 FOR one IN SELECT privilege_type, is_grantable, CASE grantee WHEN 0 THEN 'PUBLIC'
   ELSE pg_catalog.quote_ident(rolname) END AS whom FROM pg_catalog.pg_database,
   pg_catalog.aclexplode(coalesce(datacl, pg_catalog.acldefault('d', datdba))) LEFT JOIN pg_catalog.pg_roles r
   ON r.oid = grantee WHERE datname = '{live}' AND (grantee = 0 OR NOT rolsuper) LOOP
  EXECUTE pg_catalog.format('GRANT %s ON DATABASE %I TO %s', one.privilege_type, '{new}', one.whom) ||
   CASE WHEN one.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
 END LOOP;
 EXECUTE pg_catalog.format('GRANT {privileges} ON DATABASE %I TO %I', '{new}', '{owner}');
 INSERT INTO pg_catalog.pg_db_role_setting SELECT n.oid, setrole, kept FROM pg_catalog.pg_db_role_setting
  JOIN pg_catalog.pg_database d ON d.oid = setdatabase JOIN pg_catalog.pg_roles o ON o.oid = d.datdba AND o.rolsuper
  JOIN pg_catalog.pg_database n ON n.datname = '{new}' LEFT JOIN pg_catalog.pg_roles s ON s.oid = setrole,
  LATERAL (SELECT pg_catalog.array_agg(pair) AS kept FROM pg_catalog.unnest(setconfig) AS pair
   WHERE pg_catalog.split_part(pair, '=', 1) NOT IN ('role', 'session_authorization')) AS pairs
  WHERE d.datname = '{live}' AND kept IS NOT NULL AND (setrole = 0 OR NOT s.rolcanlogin);
END $$"""


@dataclass(frozen=True)
class Load:
    """A dump, and the new database into which the dump is loaded."""

    server: Server
    database: str
    """The new database, which does not exist yet."""
    owner: str
    dump: Path
    roles: Path
    """The backup's globals.sql, from which only names are read. It is never run."""
    seconds: int

    @property
    def _settings(self) -> dict[str, str]:
        """The settings of the loader's session, which acts as the owner."""
        return SESSION | {"role": self.owner}

    def contents(self) -> Contents:
        """Return the contents of the dump. Raise FailedError if the dump cannot be read."""
        found, schema = (
            dumped.entries(self._read("--list", "--create")),
            self._read("--schema-only", "--create", "--file=-").split("\n"),  # splitlines() would also split at U+2028
        )
        # Check the names against the table of contents, because the schema also contains the bodies of functions.
        listed = {one.name for one in found if one.kind == "EXTENSION"}
        ours = dumped.extensions(schema, listed & set(self.server.query(ADMIN, UNTRUSTED).splitlines()))
        named = roles.needed(self.roles, schema, self.owner)
        owners = dumped.owners(found, schema, named)
        entries, left_out = dumped.chosen(found, ours, schema, self.owner)
        there = roles.existing(self.server)
        told = (
            *([dumped.LIVE_ONES] if dumped.is_set_up(found, schema, self.owner) else []),
            *left_out,
            *dumped.reassigned(schema, owners, self.owner),
            *(
                f"extension {name} will belong to the superuser, because only a superuser may create it"
                for name, _ in ours
            ),
            *(f"role {one} is created without login, password or membership" for one in named if one not in there),
        )
        return Contents(entries, ours, named, owners, told)

    def strictly(self, contents: Contents) -> None:
        """Load the whole dump. Raise FailedError at the first error, after which the caller drops the database."""
        self._begin(contents)
        self._restore(contents.entries, "--exit-on-error")
        self._finish(contents)

    def as_far_as_possible(self, contents: Contents) -> list[str]:
        """Load a dump section by section, and continue after errors. Return a line for each error.

        CHECK constraints are dropped while rows are loaded, added again as NOT VALID, and then validated. Without these
        steps, such a dump often fails, because a CHECK constraint calls a function that reads other tables.
        """
        self._begin(contents)
        faults = list[str]()
        for section in SECTIONS:
            checks = self._put_checks_aside() if section == "data" else []
            with _telling(faults):
                self._restore(contents.entries, f"--section={section}")
            for back in checks:
                with _telling(faults):
                    self._as_loader(back)
        with _telling(faults):
            self._finish(contents)
        return faults

    def as_live(self, live: str) -> None:
        """Give the new database the live database's privileges and settings.

        Before that, only the loader can connect.
        """
        self.server.query(
            ADMIN, AS_LIVE.format(live=live, new=self.database, owner=self.owner, privileges=", ".join(PRIVILEGES))
        )

    def _begin(self, contents: Contents) -> None:
        """Create the database, and the objects in it that only a superuser may create. Only the loader may connect."""
        server, new = self.server, self.database
        roles.create(server, contents.roles)
        roles.create_loader(server, self.owner)
        # Until the privileges are revoked, only a superuser can connect.
        server.query(ADMIN, f'CREATE DATABASE "{new}" TEMPLATE template0 CONNECTION LIMIT 0')
        granted = f'GRANT CREATE, TEMPORARY ON DATABASE "{new}" TO "{self.owner}"'
        shut = f'REVOKE ALL ON DATABASE "{new}" FROM PUBLIC; GRANT CONNECT ON DATABASE "{new}" TO {LOADER}'
        server.query(ADMIN, f'{shut}; {granted}; ALTER DATABASE "{new}" CONNECTION LIMIT -1')
        made = [f'ALTER SCHEMA public OWNER TO "{self.owner}"']
        for name, where in contents.extensions:
            if where != "pg_catalog":  # `pg_amcheck --install-missing` uses the schema pg_catalog
                made += [f'CREATE SCHEMA IF NOT EXISTS {quoted(where)} AUTHORIZATION "{self.owner}"']
            made += [f"CREATE EXTENSION {quoted(name)} SCHEMA {quoted(where)} CASCADE"]
        roles.run(server, new, made)

    def _finish(self, contents: Contents) -> None:
        # ANALYZE runs index functions as the table's owner. So ANALYZE must run before any table gets another owner.
        self._as_loader("ANALYZE")
        plain = roles.plain(self.server)
        # SQL in a hostile dump may have created objects as the loader. The owner role gets these objects, so that the
        # loader can be dropped.
        roles.run(
            self.server, self.database, [f'REASSIGN OWNED BY {LOADER} TO "{self.owner}"', f"DROP OWNED BY {LOADER}"]
        )
        if not (wanted := [one for one in contents.owners if one[2] in plain]):
            return
        listed = self.server.query(self.database, THE_OWNERS.format(owner=self.owner), LONG_TIMEOUT).split("\n")
        theirs = {tuple(json.loads(line)) for line in listed if line}
        given = [
            f"ALTER {kind} {name} OWNER TO {quoted(role)}" for kind, name, role in wanted if _key(kind, name) in theirs
        ]
        roles.run(self.server, self.database, given)

    def _put_checks_aside(self) -> list[str]:
        """Drop the CHECK constraints. Return the statements that add and validate the constraints again."""
        found = [json.loads(line) for line in self._as_loader(CHECKS).split("\n") if line]
        for dropped, *_ in found:
            self._as_loader(dropped)
        return [f"SET search_path = public; {back}" for _, *again in found for back in again]

    def _as_loader(self, sql: str) -> str:
        who = (f"--username={LOADER}", f"--dbname={self.database}")
        argv = self.server.inside(*PSQL, *who, "-c", sql, settings=self._settings)
        return self.server.docker.call("docker exec psql", argv, timeout=self.seconds).stdout

    def _restore(self, entries: Sequence[str], *options: str) -> None:
        """Run pg_restore, with the dump on standard input, and with the list of entries on another file descriptor."""
        options = ("--no-owner", "--no-tablespaces", *options, f"--dbname={self.database}", f"--username={LOADER}")
        script = f'exec pg_restore "${{@:1:{len(options)}}}" --use-list=<(printf "%s\\n" "${{@:{len(options) + 1}}}")'
        argv = self.server.inside("bash", "-c", script, "pg_restore", *options, *entries, settings=self._settings)
        ran = self.server.docker.machine.run(argv, timeout=self.seconds, stdin=self.dump)
        if ran.code:
            raise FailedError(f"pg_restore of {self.dump.name} failed: {ran.reason}", ran.tail())

    def _read(self, *options: str) -> str:
        """Run pg_restore without a database, and return the text that pg_restore prints about the dump."""
        script = f'pg_restore "$@" | head -c {MOST_BYTES + 1}'
        argv = self.server.inside("bash", "-o", "pipefail", "-c", script, "pg_restore", *options)
        ran = self.server.docker.machine.run(argv, timeout=self.seconds, stdin=self.dump)
        if len(ran.stdout) > MOST_BYTES:
            raise FailedError(f"{self.dump.name} has a schema of more than {MOST_BYTES >> 20} MiB")
        if ran.code:
            raise FailedError(f"cannot read {self.dump.name}: {ran.reason}", ran.tail())
        return ran.stdout


def _key(kind: str, name: str) -> tuple[str, ...]:
    """Return a name in the form that the query THE_OWNERS returns."""
    parts = tuple(unquoted(part) for part in re.findall(rf"{IDENTIFIER}|[0-9]+", name))
    return parts if len(parts) > 1 else (kind, *parts)


@contextmanager
def _telling(faults: list[str]) -> Iterator[None]:
    """Add the errors to `faults` instead of raising FailedError."""
    try:
        yield
    except FailedError as error:
        said = [line.strip() for line in error.tail.splitlines() if "ERROR:" in line or "error:" in line]
        faults += said or [str(error)]
