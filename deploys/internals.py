"""The parts of pyinfra that deploys/ uses beyond the documented API. Check these parts when you upgrade pyinfra.

config.py pins pyinfra's version. A unit test fails if another module imports these parts of pyinfra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.output import set_echo
from pyinfra.connectors import ssh
from pyinfra.connectors.ssh import ConnectorData, SSHConnector
from pyinfra.connectors.sshuserclient import SSHClient
from pyinfra.connectors.sshuserclient.client import get_ssh_config
from pyinfra.connectors.util import SUDO_PASSWORD_REQUIRED_LINES, CommandOutput
from pyinfra.context import ctx_host, ctx_state
from pyinfra.operations.util.files import generate_color_diff

if TYPE_CHECKING:
    from paramiko import Transport
    from pyinfra.api import Host

__all__ = [
    "SSH_DATA",
    "SUDO_PASSWORD_REQUIRED_LINES",
    "CommandOutput",
    "SSHClient",
    "connect_with",
    "ctx_host",
    "ctx_state",
    "generate_color_diff",
    "get_ssh_config",
    "new_connection",
    "set_echo",
    "transport",
]

SSH_DATA = tuple(ConnectorData.__annotations__)
"""The names of host data that configure pyinfra's SSH connection."""


def connect_with(client: type[SSHClient], run_with_sudo: Callable[..., tuple[int, CommandOutput]]) -> None:
    """Make pyinfra use `client` to connect, and use `run_with_sudo` to run commands that may need sudo."""
    ssh.SSHClient = client  # type: ignore[misc]
    ssh.execute_command_with_sudo_retry = run_with_sudo


def transport(host: Host) -> Transport:
    """Return the transport of this run's SSH connection to the host.

    Raises PyinfraError if the host is not connected.
    """
    client = _connector(host).client
    if client is None:
        raise PyinfraError(f"{host.name} is not connected. Next: run the same command again")
    found = client.get_transport()
    if found is None:
        raise PyinfraError(f"The connection to {host.name} was lost. Next: run the same command again")
    return found


@contextmanager
def new_connection(host: Host, user: str) -> Iterator[SSHClient]:
    """Log in to a host a second time, as `user`, with the SSH options of the run."""
    arguments: dict[str, Any] = {**_connector(host).make_paramiko_kwargs(), "username": user}
    client = SSHClient()
    try:
        client.connect(arguments.pop("hostname"), **arguments)
        yield client
    finally:
        client.close()


def _connector(host: Host) -> SSHConnector:
    if not isinstance(host.connector, SSHConnector):
        raise PyinfraError(
            f"pyinfra does not use SSH to reach {host.name}. Next: name the host in the inventory without an @"
        )
    return host.connector
