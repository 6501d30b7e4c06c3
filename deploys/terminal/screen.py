"""What pyinfra puts on the operator's terminal: made printable, and what a Ctrl-C there leaves behind."""

from __future__ import annotations

import logging
import re
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from pyinfra import logger
from pyinfra.api.output import set_echo

from stackctl.core.printable import printable

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C ended, as a shell has it: 128 + SIGINT."""
_OF_PYINFRA = re.compile(r"(\x1b\[(?:0|1|22|3[0-7]|9[0-7])(?:;(?:0|1|22|3[0-7]|9[0-7]))*m)")
"""The colours that click.style makes for pyinfra (ECMA-48, SGR): bold, a foreground, and back."""
_going_on = ["Interrupted. Nothing was begun."]


def shown(text: str) -> str:
    """The text with its lines and pyinfra's colours, everything else in it made printable."""
    return "".join(
        part if number % 2 else printable(part, "\t\n") for number, part in enumerate(_OF_PYINFRA.split(text))
    )


def install() -> None:
    """Called by config.py, once pyinfra has installed its own echo, logging and signal handler."""
    set_echo(_echo)
    for handler in logger.handlers:
        handler.addFilter(_made_printable)
    signal.signal(signal.SIGINT, _interrupt)


def on_interrupt(message: str) -> None:
    """What Ctrl-C says from now on: what goes on without us, and how it is followed, ended or undone."""
    _going_on[:] = [message]


def _echo(message: Any = None, **options: Any) -> None:
    click.echo(shown(message) if isinstance(message, str) else message, **options)


def _made_printable(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str):
        record.msg, record.args = shown(record.getMessage()), None
    return True


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    # pyinfra ends with 0 here, which `make` would take for success and go on.
    click.echo(f"\n{_going_on[0]}", err=True)
    sys.exit(INTERRUPTED)
