"""Operations that pyinfra does not have.

As in pyinfra, an operation is a generator that yields no command if nothing has to change.
"""

from collections.abc import Generator

from pyinfra.api.command import PyinfraCommand

Commands = Generator[PyinfraCommand, None, None]
