"""The verbs `logs` and `exec`, for the containers that run now."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from stackctl.app import state
from stackctl.app.stack import Stack
from stackctl.core.errors import RefusedError
from stackctl.core.paths import DATA_SERVICES
from stackctl.services.docker import Container


def logs(stack: Stack, service: str, lines: int, *, follow: bool) -> int:
    """Show the output of `docker logs`, made printable. Return the exit code of `docker logs`."""
    going_on = ["--follow"] if follow else []
    return stack.machine.run_shown(["docker", "logs", "--tail", str(lines), *going_on, _container(stack, service).id])


def execute(stack: Stack, command: Sequence[str]) -> NoReturn:
    """Replace this process with `docker exec` in the live web container.

    If there is a terminal, `docker exec` gets the terminal.
    """
    # Remove the "--" that ends the options, because argparse keeps the "--".
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        raise RefusedError("no command was given", next_step="stackctl exec python --version, for example")
    terminal = ["--tty"] if sys.stdin.isatty() else []
    stack.machine.exec(["docker", "exec", "--interactive", *terminal, _container(stack, "web").id, *command])


def _container(stack: Stack, service: str) -> Container:
    paths, active = stack.paths, state.load(stack.paths).active
    if service in DATA_SERVICES:
        project = paths.docker.data_project
    elif service == "worker":
        project = paths.docker.worker_project
    elif active:
        project = paths.docker.project(active)
    else:
        raise RefusedError("no release yet", next_step="stackctl release TAG")
    found = next((one for one in stack.docker.containers(project) if one.service == service), None)
    if not found:
        raise RefusedError(f"{service} has no container", next_step="stackctl status")
    return found
