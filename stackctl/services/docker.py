"""What is asked of Docker besides Compose. Formats are chosen so that no container's environment is ever read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackctl.core.errors import FailedError
from stackctl.core.machine import Machine
from stackctl.core.program import ENVIRONMENT, Result

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
# .State whole: a template that asks for its Health fails where the image has no check.
CONTAINER_FORMAT = (
    '{"id":{{json .Id}},"labels":{{json .Config.Labels}},"image":{{json .Config.Image}},"state":{{json .State}},'
    '"restarts":{{json .RestartCount}}}'
)
IMAGE_FORMAT = (
    '{"id":{{json .Id}},"digests":{{json .RepoDigests}},"labels":{{json .Config.Labels}},"user":{{json .Config.User}},'
    '"architecture":{{json .Architecture}}}'
)


@dataclass(frozen=True)
class Container:
    """A container as Docker sees it; `image` is what it was made from, by the name that was given."""

    id: str
    image: str
    state: str
    health: str | None
    exit_code: int
    restarts: int
    labels: dict[str, str]

    @classmethod
    def read(cls, line: str) -> "Container":
        """One of CONTAINER_FORMAT."""
        document: dict[str, Any] = json.loads(line)
        state = document["state"]
        return cls(
            id=document["id"],
            image=document["image"],
            state=state["Status"],
            health=(state.get("Health") or {}).get("Status"),
            exit_code=state["ExitCode"],
            restarts=document["restarts"],
            labels=document["labels"] or {},
        )

    @property
    def service(self) -> str:
        return self.labels.get(SERVICE_LABEL, "")

    @property
    def well(self) -> bool:
        return self.state == "running" and self.health in {None, "healthy"}

    @property
    def serves(self) -> bool:
        """Well, or not known to be unwell: after a start of Docker's, health is asked anew."""
        return self.state == "running" and self.health != "unhealthy"

    @property
    def end(self) -> str | None:
        """How it ended by itself, if it did; one that its restart policy has started again did, too."""
        if self.state in {"running", "created"}:
            return f"{self.service} ended by itself, and was started again" if self.restarts else None
        return f"{self.service} ended by itself (exit code {self.exit_code})"

    @property
    def condition(self) -> str:
        """As an operator would say it."""
        if self.state == "running":
            return f"running, {self.health}" if self.health else "running"
        return f"{self.state} (exit code {self.exit_code})" if self.state == "exited" else self.state


@dataclass(frozen=True)
class Image:
    id: str
    digests: list[str]
    labels: dict[str, str]
    user: str
    """As its USER says: name or number, and perhaps a group; empty when it says nothing."""
    architecture: str
    """As Go spells it: amd64, arm64."""

    @property
    def runs_as_root(self) -> bool:
        user = self.user.partition(":")[0]
        return user in {"", "root"} or (user.isdecimal() and int(user) == 0)


@dataclass(frozen=True)
class Docker:
    machine: Machine

    def call(self, what: str, argv: Sequence[str], env: Mapping[str, str] = ENVIRONMENT, timeout: float = 60) -> Result:
        """Run it; FailedError says what for and why."""
        result = self.machine.run(argv, env, timeout)
        if result.code:
            raise FailedError(f"{what}: {result.reason}", result.tail())
        return result

    def containers(self, project: str, *, one_off: bool = False) -> list[Container]:
        """A Compose project's containers, running or not; or the one-shot ones that `compose run` left."""
        labels = [f"{PROJECT_LABEL}={project}", f"{ONE_OFF_LABEL}={one_off}"]
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        listed = self.call("docker can't list containers", ["docker", "ps", "--all", "--quiet", "--no-trunc", *filters])
        ids = listed.stdout.split()
        if not ids:
            return []
        # One may have gone since it was listed: what is left is printed all the same.
        found = self.machine.run(["docker", "container", "inspect", "--format", CONTAINER_FORMAT, *ids])
        containers = [Container.read(line) for line in found.stdout.splitlines() if line.strip()]
        return sorted(containers, key=lambda container: container.service)

    def image(self, reference: str) -> Image | None:
        found = self.machine.run(["docker", "image", "inspect", "--format", IMAGE_FORMAT, reference])
        if found.code:
            return None
        document = json.loads(found.stdout)
        return Image(
            id=document["id"],
            digests=document["digests"] or [],
            labels=document["labels"] or {},
            user=document["user"],
            architecture=document["architecture"],
        )

    def stop(self, containers: Sequence[Container], grace: int | None = None) -> None:
        """Ask them all at once to end; `grace` in seconds, each container's own when left out."""
        limit = [] if grace is None else ["-t", str(grace)]
        ids = [container.id for container in containers if container.state in {"running", "restarting", "paused"}]
        if ids:
            self.call("a container doesn't stop", ["docker", "stop", *limit, *ids], timeout=(grace or 300) + 30)

    def remove(self, containers: Sequence[Container]) -> None:
        ids = [container.id for container in containers]
        if ids:
            self.call("a container can't be removed", ["docker", "rm", "--force", "--volumes", *ids])

    def logs(self, container: Container, lines: int = 20) -> str:
        return self.machine.run(["docker", "logs", "--tail", str(lines), container.id]).tail(lines)

    def images_of(self, repository: str) -> dict[str, str]:
        """Image id by tag, and by digest where a tag has moved on."""
        form = '{{if eq .Tag "<none>"}}{{.Digest}}{{else}}{{.Tag}}{{end}} {{.ID}}'
        argv = ["docker", "image", "ls", "--no-trunc", "--digests", "--format", form, repository]
        lines = self.call("docker can't list images", argv).stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())
