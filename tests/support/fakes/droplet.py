"""A droplet in memory. `Droplet` replaces `Machine`. The services and the clock are fakes, and the files are real."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from unittest.mock import patch

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.cli import main, run
from stackctl.cli.background import PROGRAM
from stackctl.core import openat
from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.paths import DATA_SERVICES, Paths
from stackctl.core.program import ENVIRONMENT as ENV
from stackctl.core.program import TOO_LONG, Conversation, Result
from tests.support.fakes.declared import CONFIG, ENVIRONMENT, KNOWN, PUBLIC
from tests.support.fakes.docker import Docker
from tests.support.fakes.postgres import Postgres, Psql
from tests.support.fakes.redis import Redis
from tests.support.fakes.restic import Storage
from tests.support.fakes.systemd import Systemd
from tests.support.fakes.telegram import Telegram

PARSER = main.parser("bot")
FSYNC = os.fsync
KILLED = 9


@dataclass
class Droplet(Machine):
    """A droplet that breaks on demand: `failing` maps a part of a command line to its result."""

    paths: Paths
    systemd: Systemd = field(default_factory=Systemd)
    telegram: Telegram = field(default_factory=Telegram)
    postgres: Postgres = field(default_factory=Postgres)
    storage: Storage = field(default_factory=Storage)
    """The off-site storage."""
    typed: str | None = None
    """The answer that a person types. None means that there is no terminal."""
    bytes_free: int = 20 << 30
    inodes_free: int = 1 << 20
    disks: dict[Path, int] = field(default_factory=dict)
    """The free bytes of each directory that is on a separate disk."""
    failing: dict[str, Result] = field(default_factory=dict)
    """The results of failing commands, by a part of the command line."""
    programs: dict[str, Callable[[list[str]], Result]] = field(default_factory=dict)
    """Additional fake programs, by name."""
    app: dict[str, Any] = field(default_factory=lambda: {"ready": 200})
    later: dict[str, Any] = field(default_factory=dict)
    """The state of the app once nginx points to the colour that was idle."""
    calls: list[list[str]] = field(default_factory=list)
    boot: str = "the first"
    seconds: float = 0.0
    moments: int = 0
    moments_kept: Path | None = None
    """If set, the droplet copies everything that a kill would leave into this directory, at each moment."""
    killed_at: int | None = None
    """The number of the call or event at which stackctl is killed."""

    def __post_init__(self) -> None:
        self.redis = Redis(_data_root(self.paths) / "redis/dump.rdb")
        self.docker = Docker(self.paths, self.postgres, self.redis, self.telegram, self._inside)

    # Machine's interface

    def run(  # noqa: PLR0911
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
        if stdin:  # Like Machine, refuse to read a file that is a link or has a second name.
            with openat.directory(stdin.parent) as there:
                there.size(stdin.name)
        match list(argv):
            case ["docker", *_]:
                return self._docker(argv, env, stdin, stdout)
            case ["restic", *rest]:
                return self._restic(rest, env, timeout, stdout, most)
            case ["systemctl", verb, *words]:
                return self.systemd.systemctl(verb, words)
            case ["systemd-run", *rest]:
                # A real droplet would run this verb in a separate unit. The fake runs the verb immediately in this
                # process.
                asked = PARSER.parse_args(rest[rest.index(PROGRAM) + 1 :])
                run.run(asked, self.paths, self, StringIO(), StringIO())
                return Result(0)
            case [program, *rest] if program in self.programs:
                return self.programs[program](rest)
        return Result(127, stderr=f"{argv[0]} is not installed")

    @contextmanager
    def interactive(self, argv: Sequence[str]) -> Iterator[Conversation]:
        self._tick(list(argv))
        container, database = _in_postgres(argv)[0], argv[-1].removeprefix("--dbname=")
        throwaway = self.docker.throwaway.get(container)
        tables = self.postgres.database(database) if throwaway is None else throwaway[database]
        yield Psql(tables, self._asked)

    def run_attached(self, argv: Sequence[str], timeout: float) -> int:
        return self.run(argv, timeout=timeout).code

    def run_shown(self, argv: Sequence[str]) -> int:
        self._tick(list(argv))
        return 0

    def exec(self, argv: Sequence[str]) -> NoReturn:
        self._tick(list(argv))
        raise SystemExit(0)

    def request_over_socket(
        self,
        unix_socket: Path,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5,
    ) -> tuple[int, bytes]:
        self._tick(["GET" if body is None else "POST", unix_socket.name, target])
        colour = unix_socket.stem
        web = [c for c in self.docker.of(self.paths.docker.project(colour)) if c["state"] == "running"]
        if self.paths.units.socket(colour) not in self.systemd.units or not web:
            raise ConnectionResetError("nobody there")
        current = state.load(self.paths)
        app = self.app | (self.later if current.active == colour and current.uncommitted else {})
        if body is not None:
            accepted = web[0]["secrets"]
            given = (headers or {})["X-Telegram-Bot-Api-Secret-Token"]
            return app.get("update", 200 if given in accepted else 401), b""
        version = app.get("version", self.docker.images[web[0]["image"]])
        if target in app.get("pages", {}):
            return app["pages"][target], b""
        return (app["ready"], b"") if target == "/ready" else (200, json.dumps({"version": version}).encode())

    def status_over_socket(self, unix_socket: Path, target: str, timeout: float = 5) -> int:
        return self.request_over_socket(unix_socket, target)[0]

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
        active = state.load(self.paths).active
        there = self.docker.of(self.paths.docker.project(active)) if active else []
        serving = [self.docker.images.get(c["image"]) for c in there]
        return self.telegram.request(method, body, self.later.get("info", {}) if serving == ["1.1.0"] else {})

    def prompt(self, question: str) -> str | None:
        return self.typed

    def ignore_signals(self) -> None:
        self._tick(["ignore_signals"])

    def free(self, directory: Path) -> int:
        own = (self.disks[one] for one in (directory, *directory.parents) if one in self.disks)
        return next(own, self.bytes_free)

    def free_inodes(self, directory: Path) -> int:
        return self.inodes_free

    def disk(self, directory: Path) -> int:
        return next((at for at, one in enumerate(self.disks, 1) if one in (directory, *directory.parents)), 0)

    def chgrp(self, path: Path, group: str) -> None:
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

    # for the tests

    def reset(self) -> None:
        """Reset the machine.

        Containers with a restart policy start again. After the reset, sockets and one-shot containers are gone.
        """
        self.systemd.units.clear()
        for container in self.docker.containers:
            if container["one_off"]:
                container["state"] = "exited"

    def ran(self, words: str) -> list[list[str]]:
        return [call for call in self.calls if words in " ".join(call)]

    # internals

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
            shutil.copytree(root_of(self), there, symlinks=True)
            (there / "droplet.pickle").write_bytes(pickle.dumps(self))

    def _docker(self, argv: Sequence[str], env: Mapping[str, str], stdin: Path | None, stdout: Path | None) -> Result:
        match list(argv[1:]):
            case ["compose", *rest]:
                return self.docker.compose(rest, env)
            case ["exec", "-i", "--user", "postgres", *_]:
                container, program, *rest = _in_postgres(argv)
                return self.postgres.run(program, rest, stdin, stdout, self.docker.throwaway.get(container))
            case ["exec", "-i", "--env", "REDISCLI_AUTH", _, "redis-cli", "--user", "stackctl", *_]:
                assert env["REDISCLI_AUTH"] == "administrator's password"
                return self.redis.cli(stdout)
            case ["container", "inspect", "--format", "{{.State.OOMKilled}}", _]:
                return Result(0, str("oom" in self.failing).lower())
            case rest:
                return self.docker.docker(rest)

    def _restic(
        self, arguments: list[str], env: Mapping[str, str], timeout: float, stdout: Path | None, most: int
    ) -> Result:
        self.storage.now = self._now()
        self.storage.timeouts[next(word for word in arguments if word != "--no-lock")] = timeout
        ran = self.storage.restic(arguments, env)
        if not stdout or ran.code:
            return ran
        said = ran.stdout.encode()
        stdout.write_bytes(said[:most])
        more = f"{stdout.name} has more than the {most} bytes expected"
        return Result(TOO_LONG, stderr=more) if len(said) > most else Result(0)

    def _inside(self, what: str) -> None:
        self._tick([what])

    def _asked(self, question: str) -> None:
        """Make a query fail, or kill stackctl during the query, if the test has requested this."""
        self._tick(["psql", question])
        for part, result in self.failing.items():
            if part in question:
                raise FailedError(result.reason)


def _in_postgres(argv: Sequence[str]) -> list[str]:
    """Return the container, program and arguments of a call in PostgreSQL's container. Require our settings."""
    match list(argv):
        case ["docker", "exec", "-i", "--user", "postgres", "--env", _, "--env", options, *rest]:
            assert options.startswith("PGOPTIONS=-c search_path=pg_catalog,pg_temp "), options
            return rest
    raise AssertionError(argv)


def installed(root: Path, **config: Any) -> Droplet:
    """Return a converged droplet without a release.

    The droplet's data services run, and the images in KNOWN are published.
    """
    return converged(Droplet(Paths("bot", root)), **config)


D = TypeVar("D", bound=Droplet)


def converged(droplet: D, **config: Any) -> D:
    """Converge a droplet of the test's own class."""
    paths = droplet.paths
    for directory in (paths.opt, paths.secrets, paths.tls, paths.var, paths.time_set.parent):
        directory.mkdir(parents=True)
    paths.time_set.touch()
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
    for tag in KNOWN:
        droplet.docker.publish(tag)
    for service in DATA_SERVICES:
        droplet.docker.create(paths.docker.data_project, service, "data", {})
    return droplet


def change(droplet: Droplet, changes: Mapping[str, Any]) -> None:
    """Set attributes of the droplet or of its services, such as `postgres.lost`."""
    for name, value in changes.items():
        service, _, attribute = name.rpartition(".")
        setattr(getattr(droplet, service) if service else droplet, attribute, value)


def stackctl(droplet: Droplet, *arguments: str) -> tuple[int, str]:
    """Run stackctl. Run stackctl on the droplet, and return the exit code and the terminal's output."""
    out = StringIO()
    # A real fsync is slow. Each fsync counts as a moment at which stackctl can be killed.
    assert os.fsync is FSYNC, "another thread runs stackctl, and the last thread to end would leave its patch in place"
    with patch("os.fsync", lambda _: droplet._survive()):
        code = run.run(PARSER.parse_args(arguments), droplet.paths, droplet, out, out)
    shown = out.getvalue() + _text(droplet.paths.history)
    for secret in (*(value for value in ENVIRONMENT.values() if value not in PUBLIC), "p%20w%24d", "p w$d"):
        assert secret not in shown
    return code, out.getvalue()


def root_of(droplet: Droplet) -> Path:
    """Return the root of all the droplet's files."""
    return droplet.paths.home.parent


def _data_root(paths: Paths) -> Path:
    return paths.var / "data"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
