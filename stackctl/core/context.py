"""The context that every verb works with."""

from dataclasses import dataclass

from stackctl.core import instance
from stackctl.core.config import Config
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Context:
    """The droplet, its declared configuration, and the log of the run."""

    paths: Paths
    config: Config
    machine: Machine
    log: RunLog

    @property
    def is_copy(self) -> bool:
        """Whether this droplet was made from an image of another droplet."""
        return instance.is_copy(self.config.instance_id, self.paths)
