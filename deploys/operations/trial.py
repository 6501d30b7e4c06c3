"""Changes of what lets us in: kept on the droplet only when a new login came through them (stackctl/host/trial.py)."""

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

LOGIN_TIMEOUT_S = 60
# A restart ends no session. A reload would return before sshd has read its configuration anew, and the new login would
# prove the old one.
RESTART_SSHD = Handler("ssh", ["sshd -t", "systemctl restart ssh.service"])


@dataclass(frozen=True)
class TrialFile:
    """A file as it is to be, and what tests it (`validate` of atomic_file); nobody but its owner reads it."""

    content: bytes
    validate: str
    owner: str = "root"


@operation()
def apply_on_trial(trial: str, files: Mapping[str, TrialFile], *, handler: Handler) -> Commands:
    """Place `files` and run `handler`, which puts them in force; undone by itself unless we can still log in.

    + files: by path
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
        host.noop(f"{', '.join(files)} in force")
        return
    yield from on_trial(trial, [*changes, *map(StringCommand, handler.commands)])
    yield handler.done()


def on_trial(trial: str, commands: Sequence[PyinfraCommand]) -> Commands:
    """`commands`, between the beginning of a trial and its confirmation by a new login. Nothing when there are none.

    None of them comes after the trial's end, however long our machine sleeps: nothing would undo it.
    """
    if not commands:
        return
    yield StringCommand(f"{PROGRAM} trial begin", trial)
    for command in commands:
        if not isinstance(command, StringCommand):
            raise TypeError(f"{command!r} runs here, and can't be tied to a trial on the droplet")
        arguments = command.connector_arguments
        yield StringCommand(f"{PROGRAM} trial change", trial, QuoteString(command), **arguments)
    yield FunctionCommand(confirm_by_new_login, [trial], {})


def confirm_by_new_login(state: State, host: Host, trial: str) -> bool:  # noqa: ARG001 - what pyinfra calls with
    """Confirms the trial through a connection that begins now. pyinfra takes False for a failure."""
    try:
        code, said = _run_by_new_login(host, f"sudo -n {PROGRAM} trial confirm {trial}")
    except Exception as error:  # whatever keeps us out: the network, sshd, our key, the host's key
        host.log_styled(
            f"nobody can log in anew ({str(error) or type(error).__name__}): {_revert_notice(host, trial)}",
            fg="red",
            log_func=logger.error,
        )
        return False
    if code:
        host.log_styled(f"a new login can't confirm the change: {said}", fg="red", log_func=logger.error)
    return code == 0


def _run_by_new_login(host: Host, command: str) -> tuple[int, str]:
    """Exit code and complaint of a command of the operator's, by the converge's configuration and pinned host key."""
    # Not as the user of this run: a droplet that is being adopted is converged as root once.
    with new_connection(host, host.data.operator) as client:
        _, out, err = client.exec_command(command, timeout=LOGIN_TIMEOUT_S)
        said = err.read().decode().strip()
        if not out.channel.status_event.wait(LOGIN_TIMEOUT_S):
            raise TimeoutError("the confirmation has no end")
        return out.channel.recv_exit_status(), said


def _revert_notice(host: Host, trial: str) -> str:
    """Asked over the connection that the run still has, if it has one. That a trial is over says not how it ended."""
    record = QuoteString(str(Paths(host.data.app).trial_record(trial)))
    try:
        asked, said = host.run_shell_command(
            StringCommand("if test -e", record, "; then cat", record, "; fi"), _sudo=True
        )
    except Exception:  # the connection is gone as well
        asked = False
    if not asked:
        return "nor can the droplet be asked: two minutes after it began it puts back by itself what nobody confirmed"
    if not said.stdout:
        return "its trial is over: stackctl history says whether it was undone"
    until = json.loads(said.stdout)["until"]
    return f"the droplet puts back what was there before by itself, at {until}; then correct it, and run this again"
