"""Trials: changes to SSH or the firewall that the droplet reverts unless a new login confirms the change.

stackctl/host/trial.py is the part of a trial that runs on the droplet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, QuoteString, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from deploys.internals import new_connection
from deploys.operations import Commands
from deploys.operations.files import atomic_file
from deploys.operations.handlers import Handler
from stackctl.cli.background import PROGRAM
from stackctl.core.paths import Paths

LOGIN_TIMEOUT_S = 100  # less than the two minutes of a trial, and enough for a login on a slow machine
# Do not reload sshd, but restart sshd, which ends no session. A reload would return before sshd has read the new
# configuration, so the new login would test the old configuration.
RESTART_SSHD = Handler("ssh", ["sshd -t", "systemctl restart ssh.service"])


@dataclass(frozen=True)
class TrialFile:
    """A file to write on trial.

    Only the file's owner can read the file. `validate` is a command that tests the file (see atomic_file).
    """

    content: bytes
    validate: str
    owner: str = "root"


@operation()
def apply_on_trial(trial: str, files: Mapping[str, TrialFile], *, handler: Handler) -> Commands:
    """Write `files` and run the handler that puts the files in force.

    Unless a new login succeeds, the droplet reverts the files.

    + files: the files by path
    """
    changes: list[PyinfraCommand] = [
        command
        for dest, file in files.items()
        for command in atomic_file._inner(  # noqa: SLF001
            dest=dest,
            content=file.content,
            mode="600",
            owner=file.owner,
            group=file.owner,
            notify=handler,
            validate=file.validate,
        )
    ]
    if not changes and not handler.pending:
        host.noop(f"{', '.join(files)}: in force")
        return
    yield from on_trial(trial, [*changes, *map(StringCommand, handler.commands)])
    yield handler.done()


def on_trial(trial: str, commands: Sequence[PyinfraCommand]) -> Commands:
    """Begin a trial, run `commands`, then confirm the trial by a new login. Do nothing without commands.

    `stackctl trial change` runs each command. Once the trial is over, `stackctl trial change` refuses a command,
    because nothing would revert its change. A command can arrive after the end of the trial if the operator's machine
    was asleep.
    """
    if not commands:
        return
    yield StringCommand(f"{PROGRAM} trial begin", trial)
    for command in commands:
        if not isinstance(command, StringCommand):
            raise TypeError(f"{command!r} cannot be part of a trial, because it runs on the operator's machine")
        arguments = command.connector_arguments
        yield StringCommand(f"{PROGRAM} trial change", trial, QuoteString(command), **arguments)
    yield FunctionCommand(confirm_by_new_login, [trial], {})


def confirm_by_new_login(state: State, host: Host, trial: str) -> bool:  # noqa: ARG001 - what pyinfra calls with
    """Confirm the trial through a new connection.

    If the confirmation fails, return False, so that the operation fails.
    """
    try:
        code, said = _run_by_new_login(host, f"sudo -n {PROGRAM} trial confirm {trial}")
    except Exception as error:  # any error is possible: from the network, from sshd or from a key
        host.log_styled(
            f"no new login succeeded ({str(error) or type(error).__name__}). {_revert_notice(host, trial)}",
            fg="red",
            log_func=logger.error,
        )
        return False
    if code:
        host.log_styled(f"a new login could not confirm the change: {said}", fg="red", log_func=logger.error)
    return code == 0


def _run_by_new_login(host: Host, command: str) -> tuple[int, str]:
    """Log in again as the operator, with the run's ssh_config and host key, and run a command.
    Return the exit code and the error output.
    """
    # Log in as the operator, although this run may be logged in as root, such as the first converge of a droplet
    # without cloud-init.
    with new_connection(host, host.data.operator) as client:
        _, out, err = client.exec_command(command, timeout=LOGIN_TIMEOUT_S)
        said = err.read().decode().strip()
        if not out.channel.status_event.wait(LOGIN_TIMEOUT_S):
            raise TimeoutError(f"the confirmation timed out after {LOGIN_TIMEOUT_S} s")
        return out.channel.recv_exit_status(), said


def _revert_notice(host: Host, trial: str) -> str:
    """Return a message that says when the droplet reverts the change.

    If the old connection still works, ask the droplet over the old connection.
    """
    record = QuoteString(str(Paths(host.data.app).trial_record(trial)))
    try:
        asked, said = host.run_shell_command(
            StringCommand("if test -e", record, "; then cat", record, "; fi"), _sudo=True
        )
    except Exception:  # any error means that the old connection no longer works
        asked = False
    if not asked:
        return (
            "The droplet is unreachable. The droplet reverts an unconfirmed change by itself after two minutes. "
            "Next: wait, then run the same command again"
        )
    if not said.stdout:
        return "The trial is over. Next: sudo stackctl history, which shows whether the change was reverted"
    until = json.loads(said.stdout)["until"]
    return f"The droplet reverts the change by itself at {until}. Next: correct the change, then run this again"
