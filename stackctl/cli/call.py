"""The data of one call of a verb, for the verb's handler."""

import argparse
import os
from dataclasses import dataclass
from functools import cached_property

from stackctl.app.stack import Stack
from stackctl.core import config
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths


@dataclass(frozen=True)
class Call:
    """The arguments of a verb, and the droplet."""

    arguments: argparse.Namespace
    paths: Paths
    machine: Machine
    log: RunLog

    @cached_property
    def stack(self) -> Stack:
        """The stack, which contains the droplet's configuration.

        Raises RefusedError if the configuration is invalid.
        """
        return Stack(self.paths, config.load(self.paths), self.machine, self.log)

    @property
    def holder(self) -> str:
        """The name of this call.

        While this call holds a lock, every other run is refused with a message that contains this name.
        """
        return self.held_for(f"stackctl {self.arguments.verb}")

    def held_for(self, what: str) -> str:
        key = f"{self.arguments.key}, " if self.arguments.key else ""
        return f"{self.arguments.by}'s {what} ({key}process {os.getpid()})"
