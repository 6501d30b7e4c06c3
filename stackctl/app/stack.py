"""Actions on containers and sockets that several verbs use: start, wait for health, stop and remove."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from stackctl.app import app_env, state, telegram
from stackctl.app.state import Release
from stackctl.core.context import Context
from stackctl.core.errors import FailedError, StackError
from stackctl.core.paths import COLOURS, Paths
from stackctl.core.program import ENVIRONMENT
from stackctl.services import compose
from stackctl.services.docker import Container, Docker

UP_TIMEOUT = 180
POLL_SECONDS = 0.3
PROGRESS_SECONDS = 5
# An immediate SIGTERM would reset the connections that still wait in the backlog of the colour's socket.
DRAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Stack(Context):
    """The context of a verb, with the containers and sockets of the app."""

    @property
    def docker(self) -> Docker:
        return Docker(self.machine)

    @property
    def serving(self) -> str:
        """A description of the live release, for the message of a run that was undone."""
        with suppress(StackError):
            if (live := state.load(self.paths).release) and not self.config.isolated:
                return f"{live.tag} is still live"
        return "Everything is undone"

    def systemctl(self, verb: str, *units: str) -> None:
        self.docker.call(f"systemctl {verb} {' '.join(units)}", ["systemctl", verb, *units])

    def containers(self, colour: str) -> list[Container]:
        return self.docker.containers(self.paths.docker.project(colour))

    @property
    def worker(self) -> list[Container]:
        return self.docker.containers(self.paths.docker.worker_project)

    def web_environment(self, colour: str, release: Release, values: Mapping[str, str]) -> dict[str, str]:
        return self._environment(release, values, self.config.colours[colour])

    def worker_environment(self, release: Release) -> dict[str, str]:
        return self._environment(release, app_env.load(self.paths.snapshot(release.id)), None)

    def _environment(self, release: Release, values: Mapping[str, str], address: str | None) -> dict[str, str]:
        sha256 = expected_sha256(self.paths, release, values)
        sent = telegram.sent_secret(self.paths, state.load(self.paths))
        previous = sent if sent != values.get(app_env.SECRET) else None
        return app_env.app_environment(release, values, sha256, address, previous)

    def bring_up(self, what: str, argv: list[str], env: Mapping[str, str] = ENVIRONMENT) -> None:
        self.docker.call(f"{what} doesn't start", argv, env, UP_TIMEOUT)

    def stop_colour(self, colour: str) -> None:
        """Stop a colour's containers before the colour's socket, because requests in progress need the socket."""
        self.docker.stop(self.containers(colour), self.config.stop_grace)
        # Do not wait for these units: at a shutdown, systemd stops the units only after this process has ended.
        self.systemctl("stop", "--no-block", self.paths.units.socket(colour), self.paths.units.proxy(colour))

    def remove_colour(self, colour: str) -> None:
        self.stop_colour(colour)
        self.docker.remove(self.containers(colour))

    def start_data(self, step: str) -> None:
        """Start PostgreSQL and Redis, and wait until both are healthy."""
        project = self.paths.docker.data_project
        self.bring_up("data", compose.resume(project, self.paths.data_yaml))
        self.wait_until_well(project, step, self.config.healthy_timeout, fail_early=False)

    def remove_one_shots(self) -> None:
        """Remove the containers of migrations.

        A container of a migration keeps running even if its Docker client is killed.
        """
        for colour in COLOURS:
            self.docker.remove(self.docker.containers(self.paths.docker.project(colour), one_off=True))

    def stop_worker(self) -> None:
        """Stop the worker after its current job."""
        self.docker.stop(self.worker, self.config.worker_grace)

    def bring_up_worker(self, release: Release, argv: list[str]) -> None:
        self.bring_up("worker", argv, self.worker_environment(release))

    def wait_until_well(self, project: str, step: str, seconds: float, *, fail_early: bool) -> None:
        """Wait until every container of the project is healthy. With `fail_early`, fail if a container ends."""
        docker = self.docker

        def look() -> str | None:
            containers = docker.containers(project)
            ended = next((c for c in containers if c.end), None)
            if ended and ended.end and fail_early:
                raise FailedError(ended.end, docker.logs(ended))
            waiting = [f"{c.service} is {c.condition}" for c in containers if not c.well]
            return ", ".join(waiting) if containers else "no container yet"

        try:
            self.wait(step, seconds, look)
        except TimeoutError as error:
            unwell = [c for c in docker.containers(project) if not c.well]
            raise FailedError(str(error), "\n".join(docker.logs(c) for c in unwell)) from None

    def wait(self, step: str, seconds: float, look: Callable[[], str | None]) -> None:
        """Call `look` again and again until `look` returns None, and emit the answers.

        If the time runs out first, raise TimeoutError with the last answer.
        """
        began = told = self.machine.monotonic()
        while waiting_for := look():
            now = self.machine.monotonic()
            if now - began > seconds:
                raise TimeoutError(f"{waiting_for} (stackctl waited {seconds:.0f} s)")
            if now - told >= PROGRESS_SECONDS:
                self.log.emit(step, "progress", f"{waiting_for} (waited {now - began:.0f} of at most {seconds:.0f} s)")
                told = now
            self.machine.sleep(POLL_SECONDS)


def expected_sha256(paths: Paths, release: Release, values: Mapping[str, str]) -> str:
    """Return the label that this release's containers have if they are up to date."""
    try:
        files = paths.app_yaml.read_bytes()
    except FileNotFoundError:
        raise FailedError(f"{paths.app_yaml} is missing", next_step="converge the site (make site)") from None
    if paths.worker_yaml.exists():
        files += paths.worker_yaml.read_bytes()
    return compose.stack_sha256(files, app_env.canonical(values), release.image)
