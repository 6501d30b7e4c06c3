"""Operations that pyinfra lacks, in pyinfra's style: generators that yield no command if nothing has to change."""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
