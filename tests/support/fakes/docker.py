"""A fake Docker for a droplet in memory, with Compose, a registry and the services in the containers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackctl.app.app_env import PREVIOUS_SECRET, SECRET
from stackctl.core.paths import APP_SERVICES, COLOURS, DATA_SERVICES, Paths
from stackctl.core.program import Result
from tests.support.fakes.declared import ENVIRONMENT, KNOWN, REPOSITORY
from tests.support.fakes.postgres import Postgres
from tests.support.fakes.redis import Redis
from tests.support.fakes.telegram import Telegram


@dataclass
class Docker:
    """A fake Docker that raises AssertionError for an unknown command."""

    paths: Paths = field(compare=False)
    postgres: Postgres
    redis: Redis
    telegram: Telegram
    moment: Callable[[str], None] = field(compare=False, repr=False)
    """The function to call with each command inside a container. A test may kill stackctl in this function."""
    registry: dict[str, str] = field(default_factory=dict)
    """For each tag, the version in the label of its image."""
    image_user: str = "10001:10001"
    image_architecture: str = "amd64"
    images: dict[str, str] = field(default_factory=lambda: {"data": "data"})
    """The image ID of each name. The ID contains the version."""
    containers: list[dict[str, Any]] = field(default_factory=list)
    new_containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The state of 1.1.0's new containers, by service."""
    throwaway: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The containers of verifications, with the tables of their databases."""
    made: int = 0

    # for the tests

    def of(self, project: str, *, one_off: bool = False) -> list[dict[str, Any]]:
        return [c for c in self.containers if c["project"] == project and c["one_off"] == one_off]

    def running(self) -> list[str]:
        """Return the colours with a running container."""
        return [c for c in COLOURS if any(k["state"] == "running" for k in self.of(self.paths.docker.project(c)))]

    def publish(self, tag: str, version: str | None = None) -> None:
        self.registry[tag] = version or tag

    def create(
        self, project: str, service: str, image: str, env: Mapping[str, str], *, one_off: bool = False, name: str = ""
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

    # for stackctl

    def compose(self, arguments: list[str], env: Mapping[str, str]) -> Result:
        assert arguments[:4] == ["--ansi", "never", "--env-file", "/dev/null"]
        project, file, verb, rest = arguments[5], Path(arguments[7]), arguments[8], arguments[9:]
        if not file.exists():
            return Result(1, stderr=f"no such file: {file}")
        services = {self.paths.docker.data_project: DATA_SERVICES, self.paths.docker.worker_project: ("worker",)}.get(
            project, APP_SERVICES
        )
        image = env.get("STACK_IMAGE", "data")
        if image not in self.images:
            return Result(1, stderr=f"No such image: {image}")
        if verb == "run":
            return self._one_shot(project, image, env, rest)
        assert verb == "up", verb
        for service in services:
            self._up(project, service, image, env, recreate="--no-recreate" not in rest)
        return Result(0)

    def _up(self, project: str, service: str, image: str, env: Mapping[str, str], *, recreate: bool) -> None:
        there = [c for c in self.of(project) if c["service"] == service]
        wanted = {"image": image, **_declared(env)}
        if recreate and any(c[key] != value for c in there for key, value in wanted.items()):
            self.containers = [c for c in self.containers if c not in there]
            there = []
        for container in there:
            if service == "redis" and container["state"] != "running":
                self.redis.start()
            container["state"] = "running"
        if not there:
            self.create(project, service, image, env)

    def _one_shot(self, project: str, image: str, env: Mapping[str, str], rest: list[str]) -> Result:
        """Run the app's `migrate`, or its command that lists pending revisions."""
        self.create(project, "migrate", image, env, one_off=True, name=rest[rest.index("--name") + 1])
        self.moment("in a one-shot container")
        self.containers.pop()
        postgres = self.postgres
        known, database = KNOWN[self.images[image]], env["DATABASE_URL"].rpartition("/")[2]
        current = postgres.schemas[database] if database in postgres.beside else postgres.schema
        if rest[-1] != "--json":
            if database in postgres.beside:
                postgres.schemas[database] = known[-1]
            else:
                postgres.schema = known[-1]
            return Result(0)
        pending = known[known.index(current) + 1 :] if current in known else known if not current else []
        revisions = [{"revision": one, "kind": "contract" if one == "0003" else "expand"} for one in pending]
        return Result(0, json.dumps({"current": current, "head": known[-1], "pending": revisions}))

    def docker(self, arguments: list[str]) -> Result:  # noqa: PLR0911
        match arguments:
            case ["image" | "pull" | "tag" | "rmi", *_]:
                return self._of_images(arguments)
            case ["ps", *filters]:
                project, one_off = (part.split("=", 2)[2] for part in filters if part.startswith("label="))
                return Result(0, "\n".join(c["id"] for c in self.of(project, one_off=one_off == "True")))
            case ["container", "inspect", "--format", "{{.State.Status}}", name]:
                return Result(0, "running" if name in self.throwaway else "")
            case ["container", "inspect", "--format", _, *ids]:
                return Result(0, "\n".join(self._inspected(c) for c in self.containers if c["id"] in ids))
            case ["stop", *rest]:
                self._stop(rest)
            case ["rm", "--force", "--volumes", *ids]:
                self.containers = [c for c in self.containers if c["id"] not in ids]
                self.throwaway = {name: one for name, one in self.throwaway.items() if name not in ids}
            case ["kill", name]:
                self.throwaway.pop(name, None)
            case ["run", *rest]:
                return self._run(rest)
            case ["exec", name, "redis-cli", "PING"] if name in self.throwaway:
                return Result(0, "PONG\n")
            case ["exec", name, "redis-cli", "INFO", "persistence"] if name in self.throwaway:
                return self.redis.loaded(self.throwaway[name]["redis"]["keys"])
            case ["logs", *_, name]:
                return Result(0, f"log of {name}: {ENVIRONMENT['TOKEN']}")
            case _:
                raise AssertionError(f"docker {arguments}")
        return Result(0)

    def _of_images(self, arguments: list[str]) -> Result:
        match arguments:
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
            case _:
                raise AssertionError(f"docker {arguments}")
        return Result(0)

    def _stop(self, words: list[str]) -> None:
        for container in self.containers:
            if container["id"] not in words:
                continue
            if container["state"] == "running":
                self.telegram.ended(self.images.get(container["image"]))
            if container["service"] == "redis":
                self.redis.stop()
            container["state"] = "exited"

    def _run(self, arguments: list[str]) -> Result:
        """Run a throwaway container of a verification."""
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

    def _inspected(self, container: dict[str, Any]) -> str:
        labels = {
            "com.docker.compose.service": container["service"],
            self.paths.docker.sha256_label: container["sha256"],
            self.paths.docker.release_label: container["release"],
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


def _declared(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the labels and accepted webhook secrets, which the Compose files take from the environment."""
    labels = {"sha256": env.get("STACK_SHA256", ""), "release": env.get("STACK_RELEASE", "")}
    return {**labels, "secrets": [env[name] for name in (SECRET, PREVIOUS_SECRET) if name in env]}
