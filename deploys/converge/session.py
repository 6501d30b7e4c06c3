"""Prepares the connections of a converge: makes the connections fast, and takes each droplet's lock."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pyinfra import logger
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import BaseStateCallback

from deploys.config.environments import environment_among
from deploys.internals import transport
from deploys.operations.this_run import ME, refusals
from deploys.terminal import screen
from deploys.terminal.exit_codes import FAILED, LOCKED
from stackctl.core import records
from stackctl.core.lock import Holder
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError

if TYPE_CHECKING:
    from paramiko import Channel
    from pyinfra.api import Host

LOCK_TIMEOUT_S = 2


class SiteLock(BaseStateCallback):
    """Takes the lock of every droplet before the first operation. A dry run takes no lock."""

    _held: dict[str, Channel] = {}  # noqa: RUF012 - pyinfra calls static methods, and a run is one process

    @staticmethod
    def operation_start(state: State, op_hash: str) -> None:  # noqa: ARG004
        """Lock all hosts before any host is changed. If another run holds the lock of a host, stop."""
        for host in state.inventory.get_active_hosts():
            SiteLock._lock_once(host)

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:  # noqa: ARG004
        """Lock one host. With --serial and --no-wait, pyinfra calls this method without a call of operation_start."""
        SiteLock._lock_once(host)

    @staticmethod
    def _lock_once(host: Host) -> None:
        if host.name in refusals:
            logger.error("%s: %s", host.name, refusals[host.name])
            sys.exit(FAILED)
        if host.name not in SiteLock._held:
            SiteLock._held[host.name] = _lock(host)


def begin(state: State, host: Host) -> None:
    """Prepare a host's connection. A deploy file calls this function for each host before the first operation."""
    # With -vvv pyinfra prints the results of facts, such as hashes of secrets. A hash helps to guess a weak secret.
    state.print_fact_output = False
    # Nagle's algorithm delays small packets. TCP_NODELAY turns this delay off, and then a command takes 5 ms instead of
    # 55 ms.
    if isinstance(sock := transport(host).sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    screen.on_interrupt(interrupt_message(environment_among(host.groups)))
    if not any(isinstance(handler, SiteLock) for handler in state.callback_handlers):
        state.add_callback_handler(SiteLock())


def interrupt_message(environment: str) -> str:
    """Return the text that Ctrl-C prints: the state of the droplet after the interruption, and how to continue."""
    return (
        "Interrupted between two steps. The droplet keeps what was done, and remembers the pending handlers. A "
        "change to SSH or the firewall that no new login confirmed is reverted within two minutes.\n"
        f"Next: make site ENV={environment}, which continues from that step. "
        f"make plan ENV={environment} shows what is left."
    )


def _lock(host: Host) -> Channel:
    """Take a droplet's lock and return the channel that holds the lock.

    A process on the droplet holds the lock and reads from the channel. If the connection ends for any reason, the
    process also ends. The process is `flock … tee`: once flock has the lock, `tee` writes the holder's name into the
    lock file, and also to the channel.
    """
    paths = Paths(host.data.app)
    lock, work = paths.lock, paths.work
    # An account that can open a lock file can take the lock, so only root may open both lock files. Check the lock
    # `work` too: a release that continues after its converge has ended still holds `work`.
    host.run_shell_command(f"mkdir -p {paths.var} && touch {lock} {work} && chmod 600 {lock} {work}", _sudo=True)
    free, _ = host.run_shell_command(f"flock --timeout {LOCK_TIMEOUT_S} {work} true", _sudo=True)
    if not free:
        _exit_locked(host, work)
    channel = transport(host).open_session()
    channel.exec_command(f"sudo -n flock --timeout {LOCK_TIMEOUT_S} --conflict-exit-code {LOCKED} {lock} tee {lock}")
    channel.sendall(json.dumps(asdict(ME)).encode() + b"\n")
    if channel.recv(1):
        return channel
    if channel.recv_exit_status() == LOCKED:
        _exit_locked(host, lock)
    said = channel.recv_stderr(1000).decode().strip()
    raise PyinfraError(f"Cannot lock {host.name}: {said}. Nothing was changed. Next: ls -l {lock} on the droplet")


def _exit_locked(host: Host, lock: Path) -> NoReturn:
    """Exit with LOCKED instead of raising an exception, because pyinfra would turn an exception into exit code 1."""
    _, output = host.run_shell_command(f"cat {lock}", _sudo=True)
    logger.error("%s is locked: %s", host.name, holder_message(output.stdout))
    sys.exit(LOCKED)


def holder_message(content: str) -> str:
    """Return a message that says who holds a lock, and what to do next. `content` is the content of the lock file."""
    try:
        return str(records.loads(Holder, content).refusal)
    except RecordError:
        return "another run has just begun. Next: wait until that run ends, then run the same command again"
