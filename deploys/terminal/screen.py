"""Makes pyinfra's output printable on the operator's terminal.

When the operator presses Ctrl-C, a message says what continues on the droplet.
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from pyinfra import logger

from deploys.internals import set_echo
from deploys.terminal.exit_codes import INTERRUPTED
from stackctl.core.printable import printable

_COLOURS = re.compile(r"(\x1b\[(?:0|1|22|3[0-7]|9[0-7])(?:;(?:0|1|22|3[0-7]|9[0-7]))*m)")
"""The escape sequences that click.style writes for pyinfra (ECMA-48, SGR): bold, a foreground colour, and reset."""
_on_interrupt = ["Interrupted before anything began."]


def shown(text: str) -> str:
    """Make a text printable, but keep its line breaks, tabs and pyinfra's colours."""
    return "".join(part if number % 2 else printable(part, "\t\n") for number, part in enumerate(_COLOURS.split(text)))


def install() -> None:
    """Replace pyinfra's echo and signal handler, and filter its log.

    The function `install` is called by config.py, after pyinfra's set-up.
    """
    set_echo(_echo)
    for handler in logger.handlers:
        handler.addFilter(_made_printable)
    signal.signal(signal.SIGINT, _interrupt)


def on_interrupt(message: str) -> None:
    """Set the message that is printed when the operator presses Ctrl-C."""
    _on_interrupt[:] = [message]


def _echo(message: Any = None, **options: Any) -> None:
    click.echo(shown(message) if isinstance(message, str) else message, **options)


def _made_printable(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str):
        record.msg, record.args = shown(record.getMessage()), None
    return True


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # pyinfra itself would exit with 0 after Ctrl-C, and `make` would then continue.
    click.echo(f"\n{_on_interrupt[0]}", err=True)
    sys.exit(INTERRUPTED)
