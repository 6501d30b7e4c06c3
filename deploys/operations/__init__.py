"""What pyinfra lacks, in its own style: generators of commands that yield nothing when there is nothing to do."""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
