"""Docker without Compose.

The output formats omit the containers' environment variables, because these contain secrets.
"""

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
# Ask for the whole .State, because a template with .State.Health fails if the image has no health check.
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
    """A container, as Docker describes the container.

    `image` is the image reference that the container was created from.
    """

    id: str
    image: str
    state: str
    health: str | None
    exit_code: int
    restarts: int
    labels: dict[str, str]

    @classmethod
    def read(cls, line: str) -> "Container":
        """Read a line in CONTAINER_FORMAT."""
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
        """Whether the container runs and is not unhealthy. After a restart of Docker, the health is unknown."""
        return self.state == "running" and self.health != "unhealthy"

    @property
    def end(self) -> str | None:
        """A description of the container's end if the container ended by itself, or else None.

        A container that Docker restarted also counts as ended.
        """
        if self.state in {"running", "created"}:
            return f"{self.service} ended by itself, and was started again" if self.restarts else None
        return f"{self.service} ended by itself (exit code {self.exit_code})"

    @property
    def condition(self) -> str:
        """The state of the container, in words for an operator."""
        if self.state == "running":
            return f"running, {self.health}" if self.health else "running"
        return f"{self.state} (exit code {self.exit_code})" if self.state == "exited" else self.state


@dataclass(frozen=True)
class Image:
    """An image as Docker reports it."""

    id: str
    digests: list[str]
    labels: dict[str, str]
    user: str
    """USER of the image: a name or number, perhaps with a group. Empty if the image has no USER."""
    architecture: str
    """In the spelling of Go: amd64, arm64."""

    @property
    def runs_as_root(self) -> bool:
        user = self.user.partition(":")[0]
        return user in {"", "root"} or (user.isdecimal() and int(user) == 0)


@dataclass(frozen=True)
class Docker:
    """The Docker daemon of the droplet."""

    machine: Machine

    def call(self, what: str, argv: Sequence[str], env: Mapping[str, str] = ENVIRONMENT, timeout: float = 60) -> Result:
        """Run a command. If the command fails, raise FailedError with `what` and the cause."""
        result = self.machine.run(argv, env, timeout)
        if result.code:
            raise FailedError(f"{what}: {result.reason}", result.tail())
        return result

    def containers(self, project: str, *, one_off: bool = False) -> list[Container]:
        """List the containers of a Compose project, running or not. `one_off` lists one-shot containers only."""
        labels = [f"{PROJECT_LABEL}={project}", f"{ONE_OFF_LABEL}={one_off}"]
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        listed = self.call("Docker can't list containers", ["docker", "ps", "--all", "--quiet", "--no-trunc", *filters])
        ids = listed.stdout.split()
        if not ids:
            return []
        # If a listed container no longer exists, Docker still prints the other containers.
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
        """Stop the containers at the same time.

        `grace` is in seconds. Without `grace`, Docker uses the stop timeout of each container.
        """
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
        """Return the image ID for each tag of the repository, and for each digest that has no tag."""
        form = '{{if eq .Tag "<none>"}}{{.Digest}}{{else}}{{.Tag}}{{end}} {{.ID}}'
        argv = ["docker", "image", "ls", "--no-trunc", "--digests", "--format", form, repository]
        lines = self.call("Docker can't list images", argv).stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line.strip())
