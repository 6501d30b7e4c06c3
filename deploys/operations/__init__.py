"""Operations that pyinfra lacks, in its style: generators of commands that yield nothing if nothing has to change."""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
