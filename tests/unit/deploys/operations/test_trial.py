"""A converge runs a trial's commands in order, and reports a login that fails."""

from __future__ import annotations

import io
import shlex
from base64 import b64decode
from dataclasses import replace
from hashlib import sha256
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import FunctionCommand, StringCommand
from pyinfra.connectors.ssh import SSHConnector

from deploys import internals
from deploys.components import ssh
from deploys.facts.files import FileState, PendingHandlers
from deploys.facts.ufw import Firewall, Ufw
from deploys.operations import trial, ufw
from deploys.operations.handlers import Handler
from deploys.operations.trial import TrialFile, apply_on_trial, confirm_by_new_login, on_trial
from stackctl.cli.background import PROGRAM
from tests.support.operations import CONTENT, PLACED, commands, droplet
from tests.support.settings import settings_of

BEGIN = f"{PROGRAM} trial begin ssh"
CHANGE = [PROGRAM, "trial", "change", "ssh"]
FILES = {"/etc/x": TrialFile(CONTENT, validate="true %s")}
MARKER = "/var/lib/app/owed/x"
ARGUMENTS: dict[str, Any] = {"trial": "ssh", "files": FILES, "handler": Handler("x", ["reload"])}


def words(facts: dict[Any, Any]) -> list[str]:
    """Return the first command, the changes, and the last two commands."""
    begin, *changes, confirm, done = commands(apply_on_trial, facts, **ARGUMENTS)
    assert all(shlex.split(change)[:4] == CHANGE for change in changes), "a late change would not be reverted"
    return [begin, *(shlex.split(change)[4] for change in changes), confirm.split("(")[0], done]


def test_nothing_to_change_no_trial() -> None:
    assert list(on_trial("ssh", [])) == []
    assert commands(apply_on_trial, {FileState: PLACED, PendingHandlers: frozenset()}, **ARGUMENTS) == []


def test_a_file_is_changed_inside_of_the_trial_and_its_handler_is_pending_until_it_is_confirmed() -> None:
    begin, notify, write, reload, confirm, done = words({FileState: None, PendingHandlers: frozenset()})
    assert begin == BEGIN
    assert notify.endswith(MARKER)
    assert "mv -fT /etc/x.new /etc/x" in write
    assert (reload, confirm, done) == ("reload", "FunctionCommand", f"rm -f {MARKER}")


def test_the_content_still_travels_on_standard_input() -> None:
    with droplet({FileState: None, PendingHandlers: frozenset()}, executing=True):
        _, _, write, *_ = apply_on_trial._inner(**ARGUMENTS)
    assert b64decode(write.connector_arguments["_stdin"]) == CONTENT


def test_what_runs_here_cannot_be_tied_to_a_trial() -> None:
    with pytest.raises(TypeError, match="cannot be part of a trial"):
        list(on_trial("ssh", [FunctionCommand(print, [], {})]))


def test_the_operators_keys_are_on_trial_with_sshd_and_stay_theirs() -> None:
    settings = replace(settings_of("prod"), authorized_keys=b"a key\n")
    there = ssh.files(settings)["/home/deploy/.ssh/authorized_keys"]
    assert (there.content, there.owner) == (b"a key\n", "deploy")
    _, _, write, *_ = commands(
        apply_on_trial,
        {FileState: None, PendingHandlers: frozenset()},
        **ARGUMENTS | {"files": {"/keys": TrialFile(b"", validate="true %s", owner="deploy")}},
    )
    assert "-m 600 -o deploy -g deploy" in write


def test_a_pending_handler_is_on_trial_too() -> None:
    facts = {FileState: PLACED, PendingHandlers: frozenset({"x"})}
    assert words(facts) == [BEGIN, "reload", "FunctionCommand", f"rm -f {MARKER}"]


def test_the_firewall_changes_on_trial_alone() -> None:
    there = Firewall(active=True, policies={"incoming": "deny"}, rules=("allow 80/tcp",))
    placed = {"sha256": sha256(b"").hexdigest(), "mode": "640", "owner": "root", "group": "root"}
    arguments: dict[str, Any] = {"allow": ["80/tcp", "22/tcp"], "policies": {}, "after": b""}
    begin, *changes, confirm = commands(ufw.rules, {Ufw: there, FileState: placed}, **arguments)
    assert begin == f"{PROGRAM} trial begin firewall"
    assert changes == [f"{PROGRAM} trial change firewall 'ufw allow 22/tcp'"]
    assert confirm.startswith("FunctionCommand")


class Client:
    """A stand-in for paramiko's client. The state is kept on the class, because the tested code creates the client."""

    refuses: Exception | None = None
    code: int | None = 0
    said = b""
    asked: list[tuple[str, str, str]]
    closed: int

    def connect(self, hostname: str, username: str) -> None:
        if self.refuses:
            raise self.refuses
        self.user = f"{username}@{hostname}"

    def exec_command(self, command: str, timeout: float) -> tuple[None, Any, Any]:
        type(self).asked.append((self.user, command, f"{timeout:.0f}"))
        ended = Event()
        if self.code is not None:
            ended.set()
        out = SimpleNamespace(channel=SimpleNamespace(recv_exit_status=lambda: self.code, status_event=ended))
        return None, out, io.BytesIO(self.said)

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    class Ours(Client):
        asked: list[tuple[str, str, str]] = []  # noqa: RUF012 - made anew for each test
        closed = 0

    monkeypatch.setattr(internals, "SSHClient", Ours)
    return Ours


class Droplet:
    """A host that is being adopted, to which the converge connects as root."""

    name = "droplet"
    data = SimpleNamespace(app="bot", operator="deploy")
    record = '{"until": "12:02"}'

    def __init__(self) -> None:
        self.connector = object.__new__(SSHConnector)
        self.connector.make_paramiko_kwargs = lambda: {"hostname": "h", "username": "root"}  # type: ignore[method-assign]
        self.said = ""
        self.reachable: bool | Exception = True

    def log_styled(self, message: str, **_: object) -> None:
        self.said += message

    def run_shell_command(self, _command: object, **_: object) -> tuple[bool, Any]:
        if isinstance(self.reachable, Exception):
            raise self.reachable
        return self.reachable, SimpleNamespace(stdout=self.record)


def confirm(droplet: Any) -> bool:
    return confirm_by_new_login(SimpleNamespace(), droplet, "ssh")  # type: ignore[arg-type]


def test_the_operator_confirms_by_a_new_login(client: type[Client]) -> None:
    assert confirm(Droplet())
    assert client.asked == [("deploy@h", "sudo -n /usr/local/bin/stackctl trial confirm ssh", "100")]
    assert client.closed == 1


@pytest.mark.parametrize("cause", [OSError("timed out"), TimeoutError(), EOFError()])
def test_a_login_that_fails_is_one_line_with_what_happens_next(client: type[Client], cause: Exception) -> None:
    client.refuses = cause
    droplet = Droplet()
    assert not confirm(droplet)
    assert "no new login succeeded (" in droplet.said
    assert "()" not in droplet.said
    assert "The droplet reverts the change by itself at 12:02" in droplet.said
    assert "\n" not in droplet.said
    assert client.closed == 1


def test_an_ended_trial_may_have_been_confirmed(client: type[Client]) -> None:
    """A login may have confirmed the trial although the answer to the login was lost."""
    client.refuses = OSError("refused")
    droplet = Droplet()
    droplet.record = ""
    assert not confirm(droplet)
    assert droplet.said.endswith(
        "The trial is over. Next: sudo stackctl history, which shows whether the change was reverted"
    )


@pytest.mark.parametrize("answer", [False, OSError("Socket is closed")])
def test_a_droplet_that_cannot_be_asked_is_not_spoken_for(client: type[Client], answer: Any) -> None:
    client.refuses = OSError("refused")
    droplet = Droplet()
    droplet.reachable = answer
    assert not confirm(droplet)
    assert "The droplet is unreachable. The droplet reverts an unconfirmed change by itself" in droplet.said


def test_a_confirmation_without_an_end_is_not_waited_for(client: type[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOGIN_TIMEOUT_S", 0.01)
    client.code = None
    droplet = Droplet()
    assert not confirm(droplet)
    assert "no new login succeeded (the confirmation timed out after 0.01 s)" in droplet.said
    assert client.closed == 1


def test_a_confirmation_that_is_refused_fails_the_run(client: type[Client]) -> None:
    client.code, client.said = 2, b"stackctl trial: no change to ssh is on trial\n"
    droplet = Droplet()
    assert not confirm(droplet)
    assert "no change to ssh is on trial" in droplet.said


def test_the_run_fails_by_the_confirmation() -> None:
    """pyinfra passes `state` and `host` by name. The function returns False for a failure, to avoid a traceback."""
    *_, command = on_trial("ssh", [StringCommand("x")])
    assert isinstance(command, FunctionCommand)
    state, droplet = SimpleNamespace(), Droplet()
    command.function = lambda state, host, name: (state, host, name) == (state, droplet, "ssh")
    assert command.execute(state, droplet, {}) is True  # type: ignore[arg-type]


def test_ci_is_admitted_only_where_it_has_a_key() -> None:
    settings = settings_of("prod")
    assert b"\nAllowUsers deploy\n" in ssh.configuration(settings)


def test_the_timer_fires_every_few_seconds_even_after_a_daemon_reload() -> None:
    timer = ssh.units(settings_of("prod"))["toogoodtogo-trial@.timer"].decode()
    assert [line for line in timer.splitlines() if line.startswith("On")] == ["OnCalendar=*:*:0/5"]
