"""What release, boot, halt and status do alike: containers up, well, stopped; sockets started."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import compose, environment
from .config import Config
from .docker import Container, Docker
from .errors import FailedError
from .events import Journal
from .machine import ENVIRONMENT, Machine
from .paths import Paths
from .state import Release

UP_TIMEOUT = 180
POLL_SECONDS = 0.3
PROGRESS_SECONDS = 5


@dataclass(frozen=True)
class Stack:
    """What a verb works with."""

    paths: Paths
    config: Config
    machine: Machine
    journal: Journal

    @property
    def docker(self) -> Docker:
        return Docker(self.machine)

    def systemctl(self, verb: str, *units: str) -> None:
        self.docker.call(f"systemctl {verb} {' '.join(units)}", ["systemctl", verb, *units])

    def containers(self, colour: str) -> list[Container]:
        return self.docker.containers(self.paths.project(colour))

    def app_environment(self, colour: str, release: Release, values: Mapping[str, str]) -> dict[str, str]:
        return compose.app_environment(
            self.config, colour, release, values, expected_sha256(self.paths, release, values)
        )

    def bring_up(self, what: str, argv: list[str], env: Mapping[str, str] = ENVIRONMENT) -> None:
        self.docker.call(f"{what} doesn't start", argv, env, UP_TIMEOUT)

    def stop_colour(self, colour: str) -> None:
        """Containers first: what is under way ends through a socket that still stands."""
        self.docker.stop(self.containers(colour), self.config.stop_grace)
        self.systemctl("stop", self.paths.socket_unit(colour), self.paths.proxy_unit(colour))

    def remove_colour(self, colour: str) -> None:
        self.stop_colour(colour)
        self.docker.remove(self.containers(colour))

    def wait_until_well(self, project: str, step: str, seconds: float, *, fail_early: bool) -> None:
        """Until every container of the project runs and is healthy. `fail_early`: one that ended won't come back."""
        docker = self.docker

        def look() -> str | None:
            containers = docker.containers(project)
            ended = next((c for c in containers if c.state in {"exited", "dead"} or c.restarts), None)
            if ended and fail_early:
                raise FailedError(f"{ended.service} ended by itself (exit code {ended.exit_code})", docker.logs(ended))
            waiting = [f"{c.service} is {c.condition}" for c in containers if not c.well]
            return ", ".join(waiting) if containers else "no container yet"

        try:
            self.wait(step, seconds, look)
        except TimeoutError as error:
            unwell = [c for c in docker.containers(project) if not c.well]
            raise FailedError(str(error), "\n".join(docker.logs(c) for c in unwell)) from None

    def wait(self, step: str, seconds: float, look: Callable[[], str | None]) -> None:
        """Call `look` until it waits for nothing more; tell what it waits for. TimeoutError has the last of it."""
        began = told = self.machine.monotonic()
        while waiting_for := look():
            now = self.machine.monotonic()
            if now - began > seconds:
                raise TimeoutError(f"{waiting_for} after {seconds:.0f} s")
            if now - told >= PROGRESS_SECONDS:
                self.journal.tell(step, "progress", f"{waiting_for}, {now - began:.0f} of at most {seconds:.0f} s")
                told = now
            self.machine.sleep(POLL_SECONDS)


def expected_sha256(paths: Paths, release: Release, values: Mapping[str, str]) -> str:
    """The label that this release's containers carry when they are of this Compose file, environment and image."""
    return compose.stack_sha256(_bytes(paths.app_yaml), environment.canonical(values), release.image)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FailedError(f"{path} is missing: converge the site (make site)") from None
