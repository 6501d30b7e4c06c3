"""Loads a backup's dump into a new database, as a role that may do nothing but be the owner.

A dump is text that an app wrote, or an intruder who sent it. None of it runs as superuser: pg_restore is LOADER's,
which acts as the owner, and so do CHECK constraints, defaults, index functions and generated columns while rows are
loaded (PostgreSQL's manual warns of that: pg_restore, Notes). What needs a superuser is done by statements of our own,
built from names that were checked. The rest is left out, and named.

The proof of a backup (verify.py) and a restore (restore.py) load in the same way: what was proven can be restored.
"""
# ruff: noqa: S608

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.services.postgres import ADMIN, LONG_TIMEOUT, PRIVILEGES, PSQL, READER, SESSION, Server

LOADER = "stackctl_restore"
"""A login without a password, for the container's own socket, and for one load."""
MOST_BYTES = 64 << 20
"""Of a dump's table of contents, and of its schema."""
MOST_ROLES = 500
AT_ONCE = 200
"""Statements of ours in one command line."""
IDENTIFIER = r'[a-z_][a-z0-9_$]*|"(?:[^"\x00-\x1f\x7f]|"")+"'
ROLE_NAME = re.compile(r"(?!pg_)[\w .@+-]{1,63}")
ENTRY = re.compile(r"(\d+); \d+ \d+ ([A-Z]+(?: [A-Z]+)*) (\S+) (.*)")
"""A line of `pg_restore --list`. Where a name makes it ambiguous, the entry counts as the owner's, and is loaded."""
NAME_BYTES = 63
EXTENSION = re.compile(rf"CREATE EXTENSION IF NOT EXISTS ({IDENTIFIER}) WITH SCHEMA ({IDENTIFIER});")
CREATED_ROLE = re.compile(rf"CREATE ROLE ({IDENTIFIER});")
OWNED = re.compile(rf"ALTER (?!DATABASE|EVENT|SERVER|FOREIGN|PUBLICATION|SUBSCRIPTION).+ OWNER TO ({IDENTIFIER});")
OWNED_BY_NAME = re.compile(
    rf"ALTER (TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|SCHEMA|TYPE|DOMAIN) "
    rf"((?:{IDENTIFIER})(?:\.(?:{IDENTIFIER}))?) OWNER TO ({IDENTIFIER});"
)
OF_DATABASE = re.compile(
    rf"(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE (?:{IDENTIFIER}) (?:TO|FROM) ({IDENTIFIER}|PUBLIC)(?: WITH GRANT OPTION)?;"
)
"""Only one part of it may be of any length: a line of a dump has many millions of characters if somebody wants that."""
FOR_ALL_TABLES = re.compile(rf"CREATE PUBLICATION ({IDENTIFIER}) FOR ALL TABLES")
NAMES_ROLES = ("GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES ", "CREATE POLICY ")

SUPERUSERS_ALONE = (
    *("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "SERVER", "USER MAPPING", "FOREIGN TABLE", "ACCESS METHOD"),
    *("PROCEDURAL LANGUAGE", "OPERATOR CLASS", "OPERATOR FAMILY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE"),
    *("SUBSCRIPTION TABLE", "SUBSCRIPTION", "SECURITY LABEL", "PUBLICATION TABLES IN SCHEMA"),
)
"""What only a superuser creates, as a dump's table of contents calls it."""
OF_THE_DATABASE = ("DATABASE", "DATABASE PROPERTIES")
"""These are the live database's (`as_live`)."""
ABOUT = ("ACL", "COMMENT", "SECURITY LABEL")
OF_OTHERS = ("DATABASE ", "EXTENSION ", "EVENT TRIGGER ", "FOREIGN SERVER ", "SERVER ", "FOREIGN DATA WRAPPER ")
"""What such entries are about that isn't loaded, or brings them along."""
LIVE_ONES = "privileges and settings of the database itself stay as the live one has them"
LARGE_OBJECTS = ("BLOB", "BLOB METADATA")
SECTIONS = ("pre-data", "data", "post-data")

# Nobody's: it may not log in, and has no power but what its own tables and grants say.
PLAIN = """NOT (rolsuper OR rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE member = r.oid)"""
NO_POWERS = "NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS"
UNTRUSTED = """SELECT e.name FROM pg_catalog.pg_available_extensions e
 JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
 WHERE v.superuser AND NOT v.trusted"""
# What a dump's text says is somebody's may be PostgreSQL's own. A superuser may give pg_catalog away, and its new owner
# has each superuser's session there. So a name counts only if it is the owner's, as all is that was loaded.
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
# It may change itself, as every role may, so it is made what it should be for each load.
LOGIN = """DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{loader}') THEN
 CREATE ROLE {loader}; END IF; END $$;
ALTER ROLE {loader} LOGIN {powers} INHERIT CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL '-infinity';
ALTER ROLE {loader} RESET ALL; GRANT "{owner}" TO {loader}"""
# Settings are copied as rows, and never set: who is the owner may have left one that would stop us
# (transaction_read_only), and one may fit its own database alone (default_text_search_config). Only a superuser makes
# settings of a database that is a superuser's; those of login roles are their own.
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


class Entry(NamedTuple):
    """One of a dump's table of contents."""

    id: str
    kind: str
    schema: str
    rest: str
    """Its name, and its owner."""

    @property
    def name(self) -> str:
        return self.rest.rpartition(" ")[0]

    @property
    def owner(self) -> str:
        return self.rest.rpartition(" ")[2]


@dataclass(frozen=True)
class Contents:
    """What a dump has, and what of it can be loaded."""

    entries: tuple[str, ...]
    """Ids of its table of contents, in order."""
    extensions: tuple[tuple[str, str], ...]
    """Those that only a superuser may create, each with its schema."""
    roles: tuple[str, ...]
    """That privileges, policies or owners name, besides the owner."""
    owners: tuple[tuple[str, str, str], ...]
    """Of what belongs to one of these: kind and name as they are written, and the role."""
    told: tuple[str, ...]
    """What a restored database has not as it was, a line each."""


@dataclass(frozen=True)
class Load:
    """A dump, and where it goes."""

    server: Server
    database: str
    """It doesn't exist yet."""
    owner: str
    dump: Path
    roles: Path
    """Its globals.sql: read for names, and never run."""
    seconds: int

    @property
    def _settings(self) -> dict[str, str]:
        """Of a session of the loader's, which acts as the owner."""
        return SESSION | {"role": self.owner}

    def contents(self) -> Contents:
        """Raises FailedError when the dump can't be read."""
        found, schema = (
            _entries(self._read("--list", "--create")),
            self._read("--schema-only", "--create", "--file=-").split("\n"),  # U+2028 in a name ends no line
        )
        untrusted = set(self.server.query(ADMIN, UNTRUSTED).splitlines())
        # A line of a function's body may look like it. The table of contents has none of those, and they come later.
        untrusted &= {one.name for one in found if one.kind == "EXTENSION"}
        named = dict[str, str]()
        for line in schema:
            if match := EXTENSION.fullmatch(line):
                named.setdefault(unquoted(match[1]), unquoted(match[2]))
        ours = tuple((name, where) for name, where in named.items() if name in untrusted)
        publications = {unquoted(match[1]) for line in schema if (match := FOR_ALL_TABLES.match(line))}
        roles = _needed(self.roles, schema, self.owner)
        owners = tuple(
            (match[1], match[2], role)
            for line in schema
            if (match := OWNED_BY_NAME.fullmatch(line)) and (role := unquoted(match[3])) in roles
        )
        # By its number; where PostgreSQL 17 lists several in one entry, they become the owner's.
        large = tuple(
            ("LARGE OBJECT", one.name, one.owner) for one in found if one.kind in LARGE_OBJECTS and one.name.isdecimal()
        )
        owners += tuple(one for one in large if one[2] in roles)
        entries, left_out = _chosen(found, ours, publications, self.owner)
        missing = [one for one in roles if one not in _roles_of(self.server)]
        told = (
            *([LIVE_ONES] if _is_set_up(found, schema, self.owner) else []),
            *left_out,
            *_become_the_owner_s(schema, owners, self.owner),
            *(f"extension {name} becomes the superuser's, who alone may make it" for name, _ in ours),
            *(f"role {one} is made, with no login, password or membership" for one in missing),
        )
        return Contents(entries, ours, roles, owners, told)

    def strictly(self, contents: Contents) -> None:
        """All of it, or FailedError. The database is left as it is then: the caller drops it."""
        self._begin(contents)
        self._restore(contents.entries, "--exit-on-error")
        self._finish(contents)

    def as_far_as_possible(self, contents: Contents) -> list[str]:
        """What a dump has that doesn't load in one go, section by section; what went wrong, a line each.

        CHECK constraints are put aside while rows are loaded. They come back NOT VALID, and are then validated: one
        that calls a function which looks elsewhere is why such a dump doesn't load.
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
        """What the live database itself has: privileges, and settings that a superuser made. Until then, it is shut."""
        self.server.query(
            ADMIN, AS_LIVE.format(live=live, new=self.database, owner=self.owner, privileges=", ".join(PRIVILEGES))
        )

    def _begin(self, contents: Contents) -> None:
        """The database, with what takes a superuser in it, and nobody but the loader let in."""
        server, new = self.server, self.database
        create_roles(server, contents.roles)
        server.query(ADMIN, LOGIN.format(owner=self.owner, loader=LOADER, powers=NO_POWERS))
        # Until it is shut, nobody but a superuser gets in.
        server.query(ADMIN, f'CREATE DATABASE "{new}" TEMPLATE template0 CONNECTION LIMIT 0')
        granted = f'GRANT CREATE, TEMPORARY ON DATABASE "{new}" TO "{self.owner}"'
        shut = f'REVOKE ALL ON DATABASE "{new}" FROM PUBLIC; GRANT CONNECT ON DATABASE "{new}" TO {LOADER}'
        server.query(ADMIN, f'{shut}; {granted}; ALTER DATABASE "{new}" CONNECTION LIMIT -1')
        made = [f'ALTER SCHEMA public OWNER TO "{self.owner}"']
        for name, where in contents.extensions:
            if where != "pg_catalog":  # which pg_amcheck --install-missing takes for its own
                made += [f'CREATE SCHEMA IF NOT EXISTS {quoted(where)} AUTHORIZATION "{self.owner}"']
            made += [f"CREATE EXTENSION {quoted(name)} SCHEMA {quoted(where)} CASCADE"]
        _query(server, new, made)

    def _finish(self, contents: Contents) -> None:
        # As the owner, before anything is somebody else's: index functions run as their table's owner either way.
        self._as_loader("ANALYZE")
        plain = set(self.server.query(ADMIN, f"SELECT rolname FROM pg_catalog.pg_roles r WHERE {PLAIN}").splitlines())
        # What hostile text made as the loader itself is the owner's, too, so that the loader can go.
        _query(self.server, self.database, [f'REASSIGN OWNED BY {LOADER} TO "{self.owner}"', f"DROP OWNED BY {LOADER}"])
        if not (wanted := [one for one in contents.owners if one[2] in plain]):
            return
        listed = self.server.query(self.database, THE_OWNERS.format(owner=self.owner), LONG_TIMEOUT).split("\n")
        theirs = {tuple(json.loads(line)) for line in listed if line}
        given = [
            f"ALTER {kind} {name} OWNER TO {quoted(role)}" for kind, name, role in wanted if _key(kind, name) in theirs
        ]
        _query(self.server, self.database, given)

    def _put_checks_aside(self) -> list[str]:
        """The statements that bring them back, and validate them."""
        found = [json.loads(line) for line in self._as_loader(CHECKS).split("\n") if line]
        for dropped, *_ in found:
            self._as_loader(dropped)
        return [f"SET search_path = public; {back}" for _, *again in found for back in again]

    def _as_loader(self, sql: str) -> str:
        who = (f"--username={LOADER}", f"--dbname={self.database}")
        argv = self.server.inside(*PSQL, *who, "-c", sql, settings=self._settings)
        return self.server.docker.call("docker exec psql", argv, timeout=self.seconds).stdout

    def _restore(self, entries: Sequence[str], *options: str) -> None:
        """Standard input is the dump, so its list goes by another descriptor."""
        options = ("--no-owner", "--no-tablespaces", *options, f"--dbname={self.database}", f"--username={LOADER}")
        script = f'exec pg_restore "${{@:1:{len(options)}}}" --use-list=<(printf "%s\\n" "${{@:{len(options) + 1}}}")'
        argv = self.server.inside("bash", "-c", script, "pg_restore", *options, *entries, settings=self._settings)
        ran = self.server.docker.machine.run(argv, timeout=self.seconds, stdin=self.dump)
        if ran.code:
            raise FailedError(f"pg_restore of {self.dump.name}: {ran.reason}", ran.tail())

    def _read(self, *options: str) -> str:
        """What pg_restore says of the dump, without a database."""
        script = f'pg_restore "$@" | head -c {MOST_BYTES + 1}'
        argv = self.server.inside("bash", "-o", "pipefail", "-c", script, "pg_restore", *options)
        ran = self.server.docker.machine.run(argv, timeout=self.seconds, stdin=self.dump)
        if len(ran.stdout) > MOST_BYTES:
            raise FailedError(f"{self.dump.name} has a schema of more than {MOST_BYTES >> 20} MiB")
        if ran.code:
            raise FailedError(f"{self.dump.name} can't be read: {ran.reason}", ran.tail())
        return ran.stdout


def create_roles(server: Server, names: Iterable[str]) -> None:
    """Those that aren't there, with no login and no power. The others stay as they are."""
    there = _roles_of(server)
    _query(server, ADMIN, [f"CREATE ROLE {quoted(one)} NOLOGIN {NO_POWERS}" for one in names if one not in there])


def end(server: Server) -> None:
    """Nobody connects as the loader any more, and where nothing is left of it, it goes."""
    ended = f"SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = '{LOADER}'"
    if LOADER in _roles_of(server):
        server.query(ADMIN, f"ALTER ROLE {LOADER} NOLOGIN; {ended}")
        with suppress(FailedError):  # it was let into a database that is there yet
            server.query(ADMIN, f"DROP ROLE {LOADER}")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unquoted(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def _roles_of(server: Server) -> set[str]:
    return set(server.query(ADMIN, "SELECT rolname FROM pg_catalog.pg_roles").splitlines())


def _query(server: Server, database: str, statements: Sequence[str]) -> None:
    for first in range(0, len(statements), AT_ONCE):
        server.query(database, "; ".join(statements[first : first + AT_ONCE]), LONG_TIMEOUT)


def _entries(listed: str) -> list[Entry]:
    return [Entry(*match.groups()) for line in listed.split("\n") if (match := ENTRY.fullmatch(line))]


def _chosen(
    found: Sequence[Entry], ours: Sequence[tuple[str, str]], publications: Container[str], owner: str
) -> tuple[tuple[str, ...], list[str]]:
    """The entries to load, by their ids, and what is left out, a line each."""
    extensions, schemas = {name for name, _ in ours}, {where for _, where in ours} - {"public"}
    objects = {(one.schema, one.rest) for one in found}
    foreign = {(one.schema, one.name) for one in found if one.kind == "FOREIGN TABLE"}
    entries, left_out = list[str](), list[str]()
    for one in found:
        made = (one.kind == "EXTENSION" and one.name in extensions) or (one.kind == "SCHEMA" and one.name in schemas)
        if made or one.kind in OF_THE_DATABASE or (one.kind in ABOUT and one.rest.startswith(OF_OTHERS)):
            continue
        if one.kind in SUPERUSERS_ALONE or (one.kind == "PUBLICATION" and one.name in publications):
            left_out.append(f"{one.kind.lower()} {one.name}: only a superuser may make it")
        elif any(one.schema == schema and _is_about(one, table) for schema, table in foreign):
            continue
        elif one.kind == "DEFAULT ACL" and one.owner != owner:
            left_out.append(f"default privileges of {one.owner}")
        elif one.kind == "ACL" and one.owner != owner and not _is_known(one, objects):
            left_out.append(f"privileges on an extension's {one.name}")
        else:
            entries.append(one.id)
    return tuple(entries), left_out


def _is_set_up(found: Iterable[Entry], schema: Iterable[str], owner: str) -> bool:
    """Whether the database as a whole has settings, or other privileges than we give it."""
    ours = {owner, READER}
    granted = [line for line in schema if (match := OF_DATABASE.fullmatch(line)) and unquoted(match[1]) not in ours]
    return bool(granted) or any(one.kind == "DATABASE PROPERTIES" for one in found)


def _is_about(one: Entry, table: str) -> bool:
    return bool(re.match(rf'((FOREIGN )?TABLE |COLUMN )?"?{re.escape(table)}"?[ .]', one.rest))


def _is_known(one: Entry, objects: Container[tuple[str, str]]) -> bool:
    """Whether these privileges are on something that the dump itself makes."""
    kind, _, target = one.rest.partition(" ")
    return kind in {"COLUMN", "LARGE"} or (one.schema, target.replace('"', "")) in objects


def _needed(roles: Path, schema: Sequence[str], owner: str) -> tuple[str, ...]:
    """The roles that globals.sql names, and the schema's privileges, policies or owners as well."""
    naming = (line for line in schema if line.startswith(NAMES_ROLES) or OWNED.fullmatch(line))
    used = {name for line in naming for name in re.findall(IDENTIFIER, line)}
    with openat.directory(roles.parent) as there:
        text = there.read(roles.name, MOST_BYTES).decode(errors="replace")
    spelled = [found[1] for line in text.split("\n") if (found := CREATED_ROLE.fullmatch(line))]
    names = [
        name
        for one in spelled
        if one in used and ROLE_NAME.fullmatch(name := unquoted(one)) and len(name.encode()) <= NAME_BYTES
    ]
    if len(names) > MOST_ROLES:
        raise FailedError(f"{roles.name} names more than {MOST_ROLES} roles")
    return tuple(name for name in names if name not in {owner, LOADER, READER, "postgres", "public"})


def _become_the_owner_s(
    schema: Sequence[str], contents_owners: Sequence[tuple[str, str, str]], owner: str
) -> list[str]:
    """Of whose objects no role of their own is left, a line a role."""
    every = Counter(unquoted(found[1]) for line in schema if (found := OWNED.fullmatch(line)))
    for *_, role in contents_owners:
        every[role] -= 1
    every[owner] = every["pg_database_owner"] = 0
    return [f"{count} of {role}'s become {owner}'s" for role, count in every.items() if count > 0]


def _key(kind: str, name: str) -> tuple[str, ...]:
    """As THE_OWNERS has it."""
    parts = tuple(unquoted(part) for part in re.findall(rf"{IDENTIFIER}|[0-9]+", name))
    return parts if len(parts) > 1 else (kind, *parts)


@contextmanager
def _telling(faults: list[str]) -> Iterator[None]:
    """What fails within is told, and nothing more comes of it."""
    try:
        yield
    except FailedError as error:
        said = [line.strip() for line in error.tail.splitlines() if "ERROR:" in line or "error:" in line]
        faults += said or [str(error)]
