"""What a converge does with its connections: it makes them quick, and holds the site's lock by them."""

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
from pyinfra.connectors.ssh import SSHConnector

from deploys.config.environments import place_among
from deploys.operations.this_run import ME, refusals
from deploys.terminal import screen
from stackctl.core import records
from stackctl.core.lock import Holder
from stackctl.core.paths import Paths
from stackctl.core.records import RecordError

if TYPE_CHECKING:
    from paramiko import Channel, Transport
    from pyinfra.api import Host


LOCKED = 3
"""The code with which a run ends that found a droplet locked, and so changed nothing; as stackctl ends."""


class SiteLock(BaseStateCallback):
    """Takes the lock of every droplet before the first operation. A dry run executes none, and takes none."""

    _held: dict[str, Channel] = {}  # noqa: RUF012 - pyinfra calls static methods; one run is one process

    @staticmethod
    def operation_start(state: State, op_hash: str) -> None:  # noqa: ARG004
        """All hosts before any is changed: one that is locked stops the run."""
        for host in state.inventory.get_active_hosts():
            SiteLock._take_once(host)

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:  # noqa: ARG004
        """With --serial and --no-wait pyinfra tells of no operation_start."""
        SiteLock._take_once(host)

    @staticmethod
    def _take_once(host: Host) -> None:
        if host.name in refusals:
            logger.error("%s: %s", host.name, refusals[host.name])
            sys.exit(1)
        if host.name not in SiteLock._held:
            SiteLock._held[host.name] = _take(host)


def begin(state: State, host: Host) -> None:
    """Called by a deploy file for each host, before its first operation."""
    # With -vvv pyinfra would print what facts read: hashes of secrets among it, from which a weak one can be guessed.
    state.print_fact_output = False
    # Nagle's algorithm holds small packets back: without it a command takes 5 ms instead of 55.
    if isinstance(sock := _transport(host).sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    screen.on_interrupt(going_on(place_among(host.groups)))
    if not any(isinstance(handler, SiteLock) for handler in state.callback_handlers):
        state.add_callback_handler(SiteLock())


def going_on(place: str) -> str:
    """What Ctrl-C leaves behind."""
    return (
        "Interrupted between two steps. The droplet keeps what was done, and which handlers are pending; a change of "
        "SSH or of the firewall that no new login confirmed is undone within two minutes.\n"
        f"Next: make site ENV={place}, which goes on from there. make plan ENV={place} shows what is left."
    )


def _take(host: Host) -> Channel:
    """The lock is held by a process that reads this channel: it ends with the connection, whatever ended that.

    `tee` writes who holds the lock into the file, and echoes it when it is ours.
    """
    paths = Paths(host.data.app)
    lock, work = paths.lock, paths.work
    # Whoever may open a file may lock it, so they are root's alone. `work` is a release's that outlived its converge.
    host.run_shell_command(f"mkdir -p {paths.var} && touch {lock} {work} && chmod 600 {lock} {work}", _sudo=True)
    free, _ = host.run_shell_command(f"flock --timeout 2 {work} true", _sudo=True)
    if not free:
        _refuse(host, work)
    channel = _transport(host).open_session()
    channel.exec_command(f"sudo -n flock --timeout 2 --conflict-exit-code {LOCKED} {lock} tee {lock}")
    channel.sendall(json.dumps(asdict(ME)).encode() + b"\n")
    if channel.recv(1):
        return channel
    if channel.recv_exit_status() == LOCKED:
        _refuse(host, lock)
    raise PyinfraError(f"{host.name}: no lock could be taken: {channel.recv_stderr(1000).decode().strip()}")


def _refuse(host: Host, lock: Path) -> NoReturn:
    """Not by an exception of pyinfra's, all of which end with 1."""
    _, output = host.run_shell_command(f"cat {lock}", _sudo=True)
    logger.error("%s is locked: %s", host.name, refusal(output.stdout))
    sys.exit(LOCKED)


def refusal(content: str) -> str:
    """Who holds a lock, by the content of its file, and what to do."""
    try:
        return str(records.loads(Holder, content).refusal)
    except RecordError:
        return "another run has just begun: wait for its end, then run this again"


def _transport(host: Host) -> Transport:
    if not isinstance(host.connector, SSHConnector) or host.connector.client is None:
        raise PyinfraError(f"{host.name} is not reached by SSH: put it into the inventory by its name")
    transport = host.connector.client.get_transport()
    if transport is None:
        raise PyinfraError(f"{host.name}: the connection is gone: run this again")
    return transport
