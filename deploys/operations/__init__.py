"""Operations that pyinfra lacks.

In pyinfra's style, an operation is a generator that yields no command if nothing has to change.
"""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
