"""Looks at the droplet once for all checks of `status`, so that no program is asked twice."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from stackctl.app import app_env, state, unfinished_restore, webhook
from stackctl.app.stack import expected_sha256
from stackctl.app.state import State
from stackctl.core import instance, lock
from stackctl.core.config import Config
from stackctl.core.errors import StackError
from stackctl.core.lock import Holder
from stackctl.core.machine import Machine
from stackctl.core.paths import COLOURS, Paths
from stackctl.host import roles
from stackctl.services.docker import Container, Docker
from stackctl.services.postgres import Server


class Containers:
    """The containers of the app and of the data services, as Docker lists them."""

    def __init__(self, docker: Docker, paths: Paths, config: Config, current: State) -> None:
        self.colours: dict[str, list[Container]] = {colour: [] for colour in COLOURS}
        self.data: list[Container] = []
        self.worker: list[Container] = []
        self.gone: list[str] = []
        """The ids of the earlier releases whose image is gone."""
        self.error = ""
        """The reason why Docker did not answer, or ""."""
        try:
            self.colours = {colour: docker.containers(paths.docker.project(colour)) for colour in COLOURS}
            self.data = docker.containers(paths.docker.data_project) if config.data else []
            self.worker = docker.containers(paths.docker.worker_project)
            self.gone = [known.id for known in current.earlier if not docker.image(known.image)]
        except StackError as error:
            self.error = str(error)


@dataclass(frozen=True)
class Roles:
    """PostgreSQL's answer about roles and settings."""

    found: roles.Found | None = None
    """None if PostgreSQL was not asked, or did not answer."""
    error: str = ""


class Observed:
    """One look at the droplet."""

    def __init__(self, paths: Paths, config: Config, machine: Machine) -> None:
        self.paths, self.config, self.machine = paths, config, machine
        self.docker = Docker(machine)
        self.current = state.load(paths)
        site, self.work = lock.holder_of(paths.lock), lock.holder_of(paths.work)
        self.holder: Holder | None = site or self.work
        # Ask Telegram first, so that Telegram can answer while the other checks run.
        self._telegram: Callable[[], webhook.Look] = webhook.look(paths, config, machine, self.current)
        self.containers = Containers(self.docker, paths, config, self.current)

    @cached_property
    def is_copy(self) -> bool:
        """Whether this droplet was made from an image of another droplet, so that the app must not run."""
        return instance.is_copy(self.config.instance_id, self.paths)

    @cached_property
    def telegram(self) -> webhook.Look:
        return self._telegram()

    @cached_property
    def unfinished(self) -> str:
        """The problem of an unfinished restore, or "" if there is none or a run is in progress."""
        return "" if self.work else unfinished_restore.problem(self.paths)

    @cached_property
    def roles(self) -> Roles:
        """Roles and settings in PostgreSQL. If PostgreSQL is not running, another check reports the problem."""
        data = self.config.data
        if not data or self.work or not any(one.service == "postgres" and one.serves for one in self.containers.data):
            return Roles()
        try:
            return Roles(roles.look(Server(self.docker, self.paths.docker.data_container("postgres")), data.database))
        except StackError as error:
            return Roles(error=str(error))

    @cached_property
    def expected_sha256(self) -> str | None:
        """The label that the live release's containers should carry, or None if the app environment is lost."""
        release = self.current.release
        if not release:
            return None
        try:
            return expected_sha256(self.paths, release, app_env.load(self.paths.snapshot(release.id)))
        except StackError:
            return None
