"""A droplet in memory: what Machine meets, with a small Docker, systemd, certbot and clock. Files are real."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from stackctl.app import state
from stackctl.app.app_env import PREVIOUS_SECRET, SECRET, canonical
from stackctl.app.stack import Stack
from stackctl.cli import main, run
from stackctl.cli.background import PROGRAM
from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.paths import APP_SERVICES, COLOURS, DATA_SERVICES, Paths
from stackctl.core.program import ENVIRONMENT as ENV
from stackctl.core.program import TOO_LONG, Conversation, Result
from stackctl.release import watch
from tests.support.fakes.restic import Storage

REPOSITORY = "registry.lab.test/bot"
ENVIRONMENT = {
    "ENVIRONMENT": "lab",
    "PUBLIC_URL": "https://bot.lab.test",
    "DATABASE_URL": "postgresql://owner_00000001:p%20w%24d@db/app",
    "TELEGRAM_BOT_TOKEN": "12345:AAAAAAAAAA",
    "TELEGRAM_WEBHOOK_SECRET": "webhook-secret-1",
    "TOKEN": "12345:s3cr3t $# '\" ü",
}
PUBLIC = {"lab", "https://bot.lab.test"}
PARSER = main.parser("bot")
CONFIG: dict[str, Any] = {
    "version": 1,
    "app": "bot",
    "environment": "lab",
    "operator": "deploy",
    "repository": REPOSITORY,
    "colours": {"blue": "172.31.0.11", "green": "172.31.0.12"},
    "healthy_timeout": 20,
    "migrate_timeout": 10,
    "stop_grace": 5,
    "worker_grace": 7,
    "watch": 3,
    "connections": 12,
    "ready_path": "/ready",
    "version_path": "/health",
    "webhook_path": "/webhook",
    "certificate": None,
    "data": {"database": "app", "owner": "owner", "major": 17, "backup_memory_mib": 128, "root": "/data"},
    "migrate": True,
    "worker": True,
    "isolated": False,
}
KILLED = 9
KNOWN = {"1.0.0": ["0001"], "1.1.0": ["0001"], "1.2.0": ["0001", "0002"], "1.3.0": ["0001", "0002", "0003"]}
"""Image → the revisions that it knows; 0003 is a contract."""
OTHER_ROLES = ("postgres", "owner", "owner_reporting", "other_00000001")
UNANSWERED = ("DO $$", "ALTER ", "REASSIGN ", "CREATE ROLE ", "DROP ROLE", "SELECT pg_terminate_backend")
"""How the statements begin that PostgreSQL has no rows for."""


@dataclass
class Droplet(Machine):
    """Breaks on demand: `failing` maps a part of a command line to its result."""

    paths: Paths
    registry: dict[str, str] = field(default_factory=dict)
    """Tag → the version that its label names."""
    image_user: str = "10001:10001"
    image_architecture: str = "amd64"
    images: dict[str, str] = field(default_factory=dict)
    """Any name → image id; the id names the version."""
    containers: list[dict[str, Any]] = field(default_factory=list)
    units: set[str] = field(default_factory=set)
    beside_ours: set[str] = field(default_factory=lambda: {"nginx.service"})
    """Debian's that run."""
    logins: set[str] = field(default_factory=lambda: {"owner_00000001"})
    """PostgreSQL's login roles."""
    roles: list[list[Any]] = field(default_factory=list)
    """What PostgreSQL says of powers and settings (stackctl.host.roles)."""
    connections: int = 80
    """Free ones."""
    tables: dict[str, int] = field(default_factory=lambda: {"public.offers": 12, "public.users": 3})
    """PostgreSQL's rows."""
    beside: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same of the databases beside it."""
    comments: dict[str, str] = field(default_factory=dict)
    """What databases say of themselves."""
    redis: dict[str, str] = field(default_factory=lambda: {"redis_version": "8.0.2", "keys": "5"})
    """What Redis says of itself, and how many keys it has."""
    unloadable: dict[str, bool] = field(default_factory=dict)
    """Tables whose rows no database takes, and whether that is for a CHECK constraint of theirs."""
    unchecked: set[tuple[str, str]] = field(default_factory=set)
    """Such tables whose constraint is put aside, with their database."""
    dumped_schema: str = ""
    """What pg_restore says of the schema in a dump."""
    sessions: set[str] = field(default_factory=set)
    """Databases that somebody else is in."""
    plain_roles: set[str] = field(default_factory=set)
    """PostgreSQL's that may do nothing."""
    lost: dict[str, int] = field(default_factory=dict)
    """What restored tables are found to have instead."""
    keys_lost: int = 0
    """By Redis, when it loads what was dumped."""
    throwaway: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Containers of verifications, and their `tables`."""
    schema: str | None = None
    schemas: dict[str, str | None] = field(default_factory=dict)
    """Of the databases beside it."""
    typed: str | None = None
    """What somebody types at a terminal; None: there is none."""
    bytes_free: int = 20 << 30
    webhook: dict[str, Any] = field(default_factory=dict)
    """What Telegram was told, and says; `info` is what else getWebhookInfo has."""
    takes_webhook_back: set[str] = field(default_factory=set)
    """The versions whose containers call deleteWebhook as they end."""
    failing: dict[str, Result] = field(default_factory=dict)
    """By a part of the command line."""
    programs: dict[str, Callable[[list[str]], Result]] = field(default_factory=dict)
    """What else there is to run, by name."""
    app: dict[str, Any] = field(default_factory=lambda: {"ready": 200})
    later: dict[str, Any] = field(default_factory=dict)
    """What becomes of the app once nginx leads to the colour that was idle."""
    new_containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How those of 1.1.0 are, by service."""
    storage: Storage = field(default_factory=Storage)
    """Off the droplet."""
    calls: list[list[str]] = field(default_factory=list)
    made: int = 0
    boot: str = "the first"
    seconds: float = 0.0
    moments: int = 0
    moments_kept: Path | None = None
    """Where what a kill would leave is copied to, at each moment."""
    killed_at: int | None = None
    """The number of a call or an event."""

    # what Machine offers

    def run(  # noqa: PLR0911, PLR0912
        self,
        argv: Sequence[str],
        env: Mapping[str, str] = ENV,
        timeout: float = 60,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        most: int = sys.maxsize,
    ) -> Result:
        self._tick(list(argv))
        line = " ".join(argv)
        assert not any(value in line for value in ENVIRONMENT.values() if value not in PUBLIC), "a value as an argument"
        for start, result in self.failing.items():
            if start in line:
                return result
        if stdin:  # what is no file of its own is not read, as in Machine
            with openat.directory(stdin.parent) as there:
                there.size(stdin.name)
        match list(argv):
            case ["docker", "compose", *rest]:
                return self._compose(rest, dict(env))
            case ["docker", "exec", "-i", "--user", "postgres", *_]:
                container, program, *rest = _beside(argv)
                if container not in self.throwaway:
                    return self._postgres(program, rest, stdin, stdout)
                return self._in_the_throwaway(container, program, rest, stdin)
            case ["docker", "exec", "-i", "--env", "REDISCLI_AUTH", _, "redis-cli", "--user", "stackctl", *rest]:
                assert env["REDISCLI_AUTH"] == "administrator's password"
                if stdout:
                    stdout.write_text(self.redis["keys"])
                keys = self.redis.get("keys", "0")
                told = {**self.redis, "db0": f"keys={keys},expires=1"}
                told |= {"rdb_last_load_keys_loaded": keys, "rdb_last_load_keys_expired": "0"}
                return Result(0, "".join(f"{name}:{value}\r\n" for name, value in told.items()))
            case ["docker", *rest]:
                return self._docker(rest)
            case ["restic", *rest]:
                self.storage.now = self._now()
                self.storage.patience[next(word for word in rest if word != "--no-lock")] = timeout
                ran = self.storage.restic(rest, env)
                if not stdout or ran.code:
                    return ran
                said = ran.stdout.encode()
                stdout.write_bytes(said[:most])
                more = f"{stdout.name} has more than the {most} bytes expected"
                return Result(TOO_LONG, stderr=more) if len(said) > most else Result(0)
            case ["systemctl", verb, *units]:
                return self._systemctl(verb, [unit for unit in units if not unit.startswith("-")])
            case ["systemd-run", *rest]:
                # What a unit of its own would do, here and now.
                asked = PARSER.parse_args(rest[rest.index(PROGRAM) + 1 :])
                run.run(asked, self.paths, self, StringIO(), StringIO())
                return Result(0)
            case [program, *rest] if program in self.programs:
                return self.programs[program](rest)
        return Result(127, stderr=f"{argv[0]} is not installed")

    @contextmanager
    def conversation(self, argv: Sequence[str]) -> Iterator[Conversation]:
        self._tick(list(argv))
        container, database = _beside(argv)[0], argv[-1].removeprefix("--dbname=")
        tables = self.throwaway[container][database] if container in self.throwaway else self.database(database)
        yield _Psql(self, tables)

    def attached(self, argv: Sequence[str], timeout: float) -> int:
        return self.run(argv, timeout=timeout).code

    def shown(self, argv: Sequence[str]) -> int:
        self._tick(list(argv))
        return 0

    def become(self, argv: Sequence[str]) -> NoReturn:
        self._tick(list(argv))
        raise SystemExit(0)

    def ask(
        self,
        unix_socket: Path,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5,
    ) -> tuple[int, bytes]:
        self._tick(["GET" if body is None else "POST", unix_socket.name, target])
        colour = unix_socket.stem
        web = [c for c in self.of(self.paths.project(colour)) if c["state"] == "running"]
        if self.paths.socket_unit(colour) not in self.units or not web:
            raise ConnectionResetError("nobody there")
        current = state.load(self.paths)
        app = self.app | (self.later if current.active == colour and current.uncommitted else {})
        if body is not None:
            accepted = web[0]["secrets"]
            given = (headers or {})["X-Telegram-Bot-Api-Secret-Token"]
            return app.get("update", 200 if given in accepted else 401), b""
        version = app.get("version", self.images[web[0]["image"]])
        if target in app.get("pages", {}):
            return app["pages"][target], b""
        return (app["ready"], b"") if target == "/ready" else (200, json.dumps({"version": version}).encode())

    def status(self, unix_socket: Path, target: str, timeout: float = 5) -> int:
        return self.ask(unix_socket, target)[0]

    def request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        asked = url.rpartition("/")[2]
        if method == "POST":
            return self._telegram(asked, body)
        self._tick(["storage", method, asked])
        return self.storage.request(method, url, body, headers)

    def head(self, url: str, headers: Mapping[str, str]) -> tuple[int, str]:
        self._tick(["storage", "HEAD", url.rpartition("/")[2]])
        return self.storage.head(url, headers)

    def _telegram(self, method: str, body: bytes) -> tuple[int, bytes]:
        self._tick(["telegram", method])
        if "telegram" in self.failing:
            raise ConnectionRefusedError("Connection refused")
        if method == "setWebhook":
            self.webhook |= json.loads(body)
            return 200, b'{"ok": true, "result": true}'
        active = state.load(self.paths).active
        serving = [self.images.get(c["image"]) for c in self.of(self.paths.project(active))] if active else []
        info = {"url": self.webhook.get("url", ""), **self.webhook.get("info", {})} | (
            self.later.get("info", {}) if serving == ["1.1.0"] else {}
        )
        return 200, json.dumps({"ok": True, "result": info}).encode()

    def answer(self, question: str) -> str | None:
        return self.typed

    def shield(self) -> None:
        self._tick(["shield"])

    def free(self, directory: Path) -> int:
        return self.bytes_free

    def give(self, path: Path, group: str) -> None:
        self._tick(["chgrp", group, path.name])

    def peer_certificate(self, address: tuple[str, int], name: str) -> bytes | None:
        return None

    def now(self) -> datetime:
        self._survive()
        return self._now()

    def monotonic(self) -> float:
        return self.seconds

    def architecture(self) -> str:
        return "amd64"

    def boot_id(self) -> str:
        return self.boot

    def sleep(self, seconds: float) -> None:
        self._tick(["sleep"])
        self.seconds += seconds

    # what tests ask for

    def of(self, project: str, *, one_off: bool = False) -> list[dict[str, Any]]:
        return [c for c in self.containers if c["project"] == project and c["one_off"] == one_off]

    def database(self, name: str) -> dict[str, int]:
        """The rows of the live one, or of one beside it."""
        return self.tables if name == CONFIG["data"]["database"] else self.beside[name]

    def running(self) -> list[str]:
        """Colours with a running container."""
        return [c for c in COLOURS if any(k["state"] == "running" for k in self.of(self.paths.project(c)))]

    def publish(self, tag: str, version: str | None = None) -> None:
        self.registry[tag] = version or tag

    def reset(self) -> None:
        """A hard reset: what was running and restarts does so; sockets and one-shot containers are gone."""
        self.units.clear()
        for container in self.containers:
            if container["one_off"]:
                container["state"] = "exited"

    def ran(self, words: str) -> list[list[str]]:
        return [call for call in self.calls if words in " ".join(call)]

    # inside

    def _now(self) -> datetime:
        return datetime(2025, 11, 23, 12, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def _tick(self, call: list[str]) -> None:
        self.calls.append(call)
        self.seconds += 0.01
        self._survive()

    def _survive(self) -> None:
        self.moments += 1
        if self.moments == self.killed_at:
            (self.paths.var / "droplet.pickle").write_bytes(pickle.dumps(self))
            os._exit(KILLED)
        if self.moments_kept:
            there = self.moments_kept / str(self.moments)
            shutil.copytree(_root(self), there, symlinks=True)
            (there / "droplet.pickle").write_bytes(pickle.dumps(self))

    def _compose(self, arguments: list[str], env: dict[str, str]) -> Result:
        assert arguments[:4] == ["--ansi", "never", "--env-file", "/dev/null"]
        project, file, verb, rest = arguments[5], Path(arguments[7]), arguments[8], arguments[9:]
        if not file.exists():
            return Result(1, stderr=f"no such file: {file}")
        services = {self.paths.data_project: DATA_SERVICES, self.paths.worker_project: ("worker",)}.get(
            project, APP_SERVICES
        )
        image = env.get("STACK_IMAGE", "data")
        if image not in self.images:
            return Result(1, stderr=f"No such image: {image}")
        if verb == "run":
            return self._one_shot(project, image, env, rest)
        for service in services:
            there = [c for c in self.of(project) if c["service"] == service]
            wanted = {"image": image, **_declared(env)}
            differs = any(c[key] != value for c in there for key, value in wanted.items())
            if differs and "--no-recreate" not in rest:
                self.containers = [c for c in self.containers if c not in there]
                there = []
            for container in there:
                if service == "redis" and container["state"] != "running" and self._rdb.exists():
                    self.redis["keys"] = self._rdb.read_text()
                container["state"] = "running"
            if not there:
                self._create(project, service, image, env)
        return Result(0)

    def _one_shot(self, project: str, image: str, env: dict[str, str], rest: list[str]) -> Result:
        self._create(project, "migrate", image, env, one_off=True, name=rest[rest.index("--name") + 1])
        self._tick(["in a one-shot container"])
        self.containers.pop()
        known, database = KNOWN[self.images[image]], env["DATABASE_URL"].rpartition("/")[2]
        current = self.schemas[database] if database in self.beside else self.schema
        if rest[-1] != "--json":
            if database in self.beside:
                self.schemas[database] = known[-1]
            else:
                self.schema = known[-1]
            return Result(0)
        pending = known[known.index(current) + 1 :] if current in known else known if not current else []
        revisions = [{"revision": one, "kind": "contract" if one == "0003" else "expand"} for one in pending]
        return Result(0, json.dumps({"current": current, "head": known[-1], "pending": revisions}))

    def _postgres(self, program: str, arguments: list[str], stdin: Path | None, stdout: Path | None) -> Result:
        if program == "bash":
            return self._pg_restore(arguments, stdin, self.beside)
        if "--username=stackctl_restore" in arguments:
            return self._as_loader(arguments)
        if program == "psql":
            return self._sql(arguments[-1])
        if stdout:
            stdout.write_text(json.dumps(self.tables if program == "pg_dump" else {}))
        elif program == "pg_restore":
            return Result(0, "; a comment\n215; 0 16385 TABLE DATA public offers owner\n")
        return Result(0)

    def _sql(self, statement: str) -> Result:  # noqa: PLR0911
        """The answer to what the superuser is known to ask."""
        if "pg_database_size" in statement:
            return Result(0, f"17|{self.connections}|7000000\n")
        if "rolcanlogin" in statement and statement.startswith("SELECT rolname"):
            return Result(0, "\n".join(self.plain_roles))
        if re.fullmatch(r"SELECT rolname FROM (pg_catalog\.)?pg_roles", statement):
            return Result(0, "\n".join([*self.logins, *self.plain_roles, *OTHER_ROLES]))
        if "json_build_array('role'" in statement:
            return Result(0, "\n".join(json.dumps(row) for row in self.roles))
        if "DROP ROLE" in statement:
            self.logins.discard(statement.rsplit(maxsplit=1)[-1].strip('"'))
        if "pg_shdepend" in statement or "pg_available_extensions" in statement or statement.startswith(UNANSWERED):
            return Result(0)
        if statement == "SHOW server_version":
            return Result(0, "17.11")
        assert "DATABASE" in statement or "FROM pg_database" in statement, statement
        return self._databases(statement)

    @property
    def _rdb(self) -> Path:
        """What Redis saves when it is stopped, and starts from."""
        return _data_root(self.paths) / "redis/dump.rdb"

    def _databases(self, statement: str) -> Result:
        """Made, dropped, renamed, and asked what they say of themselves."""
        names = re.findall('"([a-z_]+)"', statement)
        match statement.split(maxsplit=1)[0]:
            case "CREATE":
                self.beside[names[0]] = {}
            case "DROP":
                for of_databases in (self.beside, self.comments, self.schemas):
                    of_databases.pop(names[0], None)
            case "COMMENT":
                self.comments[names[0]] = statement.partition("'")[2].rstrip("'")
            case "ALTER" | "BEGIN;":
                if "pg_terminate_backend" in statement:
                    self.sessions -= set(re.findall("'([a-z_]+)'", statement))
                if taken := self.sessions & set(names):
                    return Result(1, stderr=f'ERROR:  database "{taken.pop()}" is being accessed by other users')
                for old, new in zip(names[::2], names[1::2], strict=True):
                    self._rename(old, new)
            case "SELECT" if "datname FROM" in statement:
                return Result(0, "\n".join([CONFIG["data"]["database"], *self.beside]))
            case "SELECT":
                return Result(0, self.comments.get(statement.rpartition("= ")[2].strip("'"), ""))
        return Result(0)

    def _rename(self, old: str, new: str) -> None:
        live = CONFIG["data"]["database"]
        tables, revision = self.database(old), self.schemas.pop(old, self.schema)
        self.beside.pop(old, None)
        comment = self.comments.pop(old, "")
        if new == live:
            self.tables, self.schema = tables, revision
        else:
            self.beside[new], self.schemas[new] = tables, revision
        self.comments[new] = comment

    def _pg_restore(self, arguments: list[str], dump: Path | None, databases: dict[str, dict[str, int]]) -> Result:
        """What it says of a dump, or the dump's tables in a database, as far as its options go."""
        assert dump
        try:
            tables = json.loads(dump.read_text())
        except ValueError:
            return Result(1, stderr="pg_restore: error: could not read from input file: end of file")
        names = list(tables)
        if "--list" in arguments:
            rows = "\n".join(
                f"{id_}; 0 1 TABLE DATA {name.replace('.', ' ', 1)} owner" for id_, name in enumerate(names)
            )
            return Result(0, f";\n; a comment\n{rows}\n")
        if "--schema-only" in arguments:
            return Result(0, self.dumped_schema)
        database = next(word for word in arguments if word.startswith("--dbname=")).removeprefix("--dbname=")
        assert "--username=stackctl_restore" in arguments, "nothing of a dump runs as superuser"
        loaded = databases.setdefault(database, {})
        wrong = []
        for name in [names[int(id_)] for id_ in arguments if id_.isdecimal()]:
            if name in self.unloadable and (name, database) not in self.unchecked:
                loaded[name] = 0
                wrong.append(
                    f"pg_restore: error: COPY failed for table {name}: ERROR:  no\nCONTEXT:  COPY line 1: a row"
                )
                if "--exit-on-error" in arguments:
                    break
            else:
                loaded[name] = self.lost.get(name, tables[name])
        loaded |= {name: rows for name, rows in self.lost.items() if name not in names}
        if database in self.beside:
            remembered = json.loads((dump.parent / "state.json").read_text())["revisions"]
            self.schemas[database] = remembered[-1]["revision"] if remembered else None
        return Result(1 if wrong else 0, stderr="\n".join(wrong))

    def _as_loader(self, arguments: list[str]) -> Result:
        """Asked for the constraints that keep rows out, and to drop one."""
        statement, database = arguments[-1], arguments[-3].removeprefix("--dbname=")
        if "json_build_array" in statement:
            checked = [name for name, by_a_check in self.unloadable.items() if by_a_check]
            statements = [[f"{verb} {name}" for verb in ("DROP", "ADD", "VALIDATE")] for name in checked]
            return Result(0, "\n".join(map(json.dumps, statements)))
        if statement.startswith("DROP "):
            self.unchecked.add((statement.removeprefix("DROP "), database))
        return Result(0)

    def _in_the_throwaway(self, container: str, program: str, arguments: list[str], stdin: Path | None) -> Result:
        if program == "bash":
            return self._pg_restore(arguments, stdin, self.throwaway[container])
        if "--username=stackctl_restore" in arguments:
            return self._as_loader(arguments)
        return Result(0)

    def _run(self, arguments: list[str]) -> Result:
        """A throwaway container of a verification."""
        name = next(part for part in arguments if part.startswith("--name=")).removeprefix("--name=")
        assert {"--network=none", "--memory=128m", "--memory-swap=128m", "--pull=never"} <= set(arguments)
        if "--rm" in arguments:
            mounted = next(part for part in arguments if "target=/dump.rdb" in part)
            rdb = Path(mounted.partition("source=")[2].partition(",")[0])
            return Result(0, f"[info] {rdb.read_text()} keys read\n[info] 0 already expired\n")
        assert name not in self.throwaway
        data = Path(next(part for part in arguments if ",target=" in part).partition("source=")[2].partition(",")[0])
        rdb = data / "dump.rdb"
        self.throwaway[name] = {"redis": {"keys": int(rdb.read_text())}} if rdb.exists() else {}
        return Result(0, "id of it")

    def _create(
        self, project: str, service: str, image: str, env: dict[str, str], *, one_off: bool = False, name: str = ""
    ) -> None:
        self.made += 1
        container = {
            "id": f"{name or service}{self.made}",
            **{"project": project, "service": service, "one_off": one_off, "image": image, "state": "running"},
            **{"health": "healthy", "exit_code": 0, "restarts": 0},
            **_declared(env),
        }
        broken = self.new_containers.get(service, {}) if self.images[image] == "1.1.0" else {}
        self.containers.append(container | broken)

    def _docker(self, arguments: list[str]) -> Result:  # noqa: PLR0911, PLR0912
        match arguments:
            case ["ps", *filters]:
                project, one_off = (part.split("=", 2)[2] for part in filters if part.startswith("label="))
                return Result(0, "\n".join(c["id"] for c in self.of(project, one_off=one_off == "True")))
            case ["container", "inspect", "--format", "{{.State.OOMKilled}}", name]:
                return Result(0, str("oom" in self.failing).lower())
            case ["container", "inspect", "--format", "{{.State.Status}}", name]:
                return Result(0, "running" if name in self.throwaway else "")
            case ["container", "inspect", "--format", _, *ids]:
                return Result(0, "\n".join(self._inspected(c) for c in self.containers if c["id"] in ids))
            case ["image", "inspect", "--format", _, name]:
                return self._image(name)
            case ["image", "ls", *_, repository]:
                ours = {n[len(repository) + 1 :]: i for n, i in self.images.items() if n.startswith(repository)}
                return Result(0, "\n".join(f"{tag} {image}" for tag, image in ours.items()))
            case ["pull", "--quiet", name]:
                return self._pull(name)
            case ["tag", source, target]:
                self.images[target] = self.images[source]
            case ["rmi", "--force", image]:
                self.images = {name: id_ for name, id_ in self.images.items() if id_ != image}
            case ["rmi", name]:
                self.images.pop(name, None)
            case ["stop", *rest]:
                for container in self.containers:
                    ends = container["id"] in rest and container["state"] == "running"
                    if ends and self.images.get(container["image"]) in self.takes_webhook_back:
                        self.webhook["url"] = ""
                    if container["id"] in rest and container["service"] == "redis":
                        self._rdb.write_text(self.redis["keys"])
                    container["state"] = "exited" if container["id"] in rest else container["state"]
            case ["kill", name]:
                self.throwaway.pop(name, None)
            case ["rm", "--force", "--volumes", *ids]:
                self.containers = [c for c in self.containers if c["id"] not in ids]
                self.throwaway = {name: one for name, one in self.throwaway.items() if name not in ids}
            case ["run", *rest]:
                return self._run(rest)
            case ["exec", name, "redis-cli", "PING"] if name in self.throwaway:
                return Result(0, "PONG\n")
            case ["exec", name, "redis-cli", "INFO", "persistence"] if name in self.throwaway:
                keys = self.throwaway[name]["redis"]["keys"] - self.keys_lost
                return Result(0, f"rdb_last_load_keys_expired:1\r\nrdb_last_load_keys_loaded:{keys - 1}\r\n")
            case ["logs", *_, name]:
                return Result(0, f"log of {name}: {ENVIRONMENT['TOKEN']}")
            case _:
                raise AssertionError(f"docker {arguments}")
        return Result(0)

    def _inspected(self, container: dict[str, Any]) -> str:
        labels = {
            "com.docker.compose.service": container["service"],
            self.paths.sha256_label: container["sha256"],
            self.paths.release_label: container["release"],
        }
        health = {"Health": {"Status": container["health"]}} if container["health"] else {}
        state = {"Status": container["state"], "ExitCode": container["exit_code"], **health}
        keys = ("id", "image", "restarts")
        return json.dumps({"labels": labels, "state": state, **{key: container[key] for key in keys}})

    def _image(self, name: str) -> Result:
        if name not in self.images:
            return Result(1, stderr=f"No such image: {name}")
        image = self.images[name]
        digests = [other for other, id_ in self.images.items() if "@" in other and id_ == image]
        labels = {"org.opencontainers.image.version": image}
        shown = {"id": image, "digests": digests, "labels": labels, "user": self.image_user}
        return Result(0, json.dumps({**shown, "architecture": self.image_architecture}))

    def _pull(self, name: str) -> Result:
        tag = name.rpartition(":")[2]
        if tag not in self.registry:
            return Result(1, stderr="Error response from daemon: manifest unknown")
        version = self.registry[tag]
        self.images[name] = self.images[f"{REPOSITORY}@sha256:{version}"] = version
        return Result(0, name)

    def _systemctl(self, verb: str, units: list[str]) -> Result:
        match verb:
            case "show":
                return Result(0, "active\n" if units[0] in self.units else "inactive\n")
            case "is-active":
                return Result(0 if units[0] in self.units | self.beside_ours else 3)
            case "start" | "restart":
                self.units |= set(units)
            case "stop":
                self.units -= set(units)
            case "reload" | "reset-failed" | "reboot":
                pass
            case _:
                raise AssertionError(f"systemctl {verb} {units}")
        return Result(0)


class _Psql(Conversation):
    def __init__(self, droplet: Droplet, tables: dict[str, int]) -> None:
        self._droplet, self._tables = droplet, tables

    def ask(self, question: str, last: str, timeout: float) -> list[str]:
        self._droplet._tick(["psql", question])
        for part, result in self._droplet.failing.items():
            if part in question:
                raise FailedError(result.reason)
        names = [tuple(name.split(".")) for name in self._tables]
        match [word for word in question.split() if word != "a;"]:
            case (
                ["SET", "client_min_messages", *_] | ["SET", "lock_timeout", *_] | ["BEGIN", *_] | ["LOCK", "TABLE", *_]
            ):
                return []
            case ["SELECT", "pg_catalog.pg_export_snapshot();", *_]:
                return ["00000003-0000001B-1"]
            case ["SELECT", "pg_catalog.json_build_array(", *_]:
                return [json.dumps([16385 + n, *name, "id", True]) for n, name in enumerate(names)]
            case ["SELECT", "l.relation::pg_catalog.int8", *_]:
                return ["7", str(16385 + len(names) - 1)]
            case ["SAVEPOINT", "COPY", table, *_]:
                return [str(self._tables[table.replace('"', "")])]
            case _:
                raise AssertionError(question)


def _beside(argv: Sequence[str]) -> list[str]:
    """Container, program and arguments of what runs beside PostgreSQL, with our settings."""
    match list(argv):
        case ["docker", "exec", "-i", "--user", "postgres", "--env", _, "--env", options, *rest]:
            assert options.startswith("PGOPTIONS=-c search_path=pg_catalog,pg_temp "), options
            return rest
    raise AssertionError(argv)


def installed(root: Path, **config: Any) -> Droplet:
    """A converged droplet without a release: what the deploys put there, data running, KNOWN published."""
    paths = Paths("bot", root)
    for directory in (paths.opt, paths.secrets, paths.tls, paths.var):
        directory.mkdir(parents=True)
    (paths.secrets / "redis").mkdir()
    paths.redis_administrator.write_text("administrator's password")
    paths.data_yaml.write_text("services: {}\n")
    paths.app_yaml.write_text("services: {}\n")
    paths.worker_yaml.write_text("services: {}\n")
    data = CONFIG["data"] | {"root": str(_data_root(paths))}
    (_data_root(paths) / "redis").mkdir(parents=True)
    paths.config.write_text(json.dumps(CONFIG | {"data": data} | config))
    nothing: dict[str, Any] = {"files": [], "units": [], "logins": [], "ports": [], "accepted": {}}
    paths.declared.write_text(json.dumps({"version": 1, **nothing}))
    paths.next_environment.write_bytes(canonical(ENVIRONMENT))
    droplet = Droplet(paths, images={"data": "data"})
    for tag in KNOWN:
        droplet.publish(tag)
    for service in DATA_SERVICES:
        droplet._create(paths.data_project, service, "data", {})
    return droplet


def stackctl(droplet: Droplet, *arguments: str) -> tuple[int, str]:
    """Exit code and what the terminal showed."""
    out = StringIO()
    # Slow. Each is a moment at which a kill finds what was written before, and nothing of what comes next.
    with patch("os.fsync", lambda _: droplet._survive()):
        code = run.run(PARSER.parse_args(arguments), droplet.paths, droplet, out, out)
    shown = out.getvalue() + _text(droplet.paths.history)
    for secret in (*(value for value in ENVIRONMENT.values() if value not in PUBLIC), "p%20w%24d", "p w$d"):
        assert secret not in shown
    return code, out.getvalue()


def killed(droplet: Droplet, at: int, *arguments: str) -> Droplet | None:
    """The droplet after `kill -9` of stackctl at its call or event number `at`; None when it had ended before."""
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.killed_at = 0, at
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # or a failure would go on as a second pytest
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return None
    assert code == KILLED, "stackctl raised"
    left: Droplet = pickle.loads((droplet.paths.var / "droplet.pickle").read_bytes())  # noqa: S301 - our own
    return left


def kills(droplet: Droplet, *arguments: str, every: int = 1) -> Iterator[tuple[int, Droplet]]:
    """What `kill -9` of stackctl leaves at each of its moments in turn, or at every second one and so on.

    One run leaves them all: in a process of its own, which copies its files whenever it could be killed. A kill leaves
    no more than that, since no lock and no memory outlives its process (`killed` shows it, with a real one).
    """
    root, aside = _root(droplet), _root(droplet).with_name("moments")
    child = os.fork()
    if not child:
        try:
            droplet.moments, droplet.moments_kept = 0, aside
            stackctl(droplet, *arguments)
            os._exit(0)
        finally:
            os._exit(1)  # or a failure would go on as a second pytest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "stackctl raised"
    for at in sorted(int(path.name) for path in aside.iterdir())[::every]:
        shutil.rmtree(root)
        (aside / str(at)).rename(root)
        left: Droplet = pickle.loads((root / "droplet.pickle").read_bytes())  # noqa: S301 - our own
        left.moments_kept = None
        yield at, left
    shutil.rmtree(aside)


def _root(droplet: Droplet) -> Path:
    """That of all its files."""
    return droplet.paths.home.parent


def killed_at(droplet: Droplet, where: tuple[Any, str], *arguments: str) -> Droplet:
    """What is left after `kill -9` at this function, a name in a module or a class. Its first argument is the stack."""

    def killed_here(stack: Stack, *_rest: object, **_named: object) -> None:
        there: Any = stack.machine
        there.killed_at = there.moments + 1
        there.now()

    with patch.object(*where, killed_here):
        left = killed(droplet, 0, *arguments)
    assert left
    return left


def killed_at_its_watch(droplet: Droplet, tag: str) -> Droplet:
    """What a release leaves that was killed after its flip: nginx leads to it, and what was before is warm."""
    return killed_at(droplet, (watch, "watch"), "release", tag)


def _data_root(paths: Paths) -> Path:
    return paths.var / "data"


def _declared(env: Mapping[str, str]) -> dict[str, Any]:
    """What the Compose files take from it: the labels, and Telegram's secrets that the app accepts."""
    labels = {"sha256": env.get("STACK_SHA256", ""), "release": env.get("STACK_RELEASE", "")}
    return {**labels, "secrets": [env[name] for name in (SECRET, PREVIOUS_SECRET) if name in env]}


def self_signed(directory: Path, domain: str) -> None:
    """Puts a fullchain.pem there, another one than is there already, and something in its key's place."""
    directory.mkdir(parents=True, exist_ok=True)
    chain = directory / "fullchain.pem"
    chain.write_text(next(pem for pem in _two_certificates(domain, directory.name) if pem != _text(chain)))
    (directory / "privkey.pem").write_text(f"the key of {directory.name}\n")


@cache
def _two_certificates(domain: str, _directory: str) -> tuple[str, str]:
    """As PEM, others for each directory. Making one takes longer than a test may."""
    what = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90"]
    name = ["-subj", "/CN=Test CA", "-addext", f"subjectAltName=DNS:{domain}", "-keyout", "/dev/null"]
    one, other = (subprocess.run([*what, *name], check=True, capture_output=True, text=True).stdout for _ in range(2))
    return one, other


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
