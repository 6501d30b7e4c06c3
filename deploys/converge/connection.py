"""pyinfra's way to a droplet: what keeps us out is said in terms of the files that are used here.

pyinfra's own words name no file, and for a changed host key advise `ssh-keygen -R`, which edits ~/.ssh/known_hosts.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import gaierror
from typing import Any

from paramiko import AuthenticationException, BadHostKeyException, MissingHostKeyPolicy, PKey
from paramiko import SSHClient as ParamikoClient
from pyinfra.api import Host
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors import ssh
from pyinfra.connectors.sshuserclient import SSHClient
from pyinfra.connectors.sshuserclient.client import get_ssh_config
from pyinfra.connectors.util import SUDO_PASSWORD_REQUIRED_LINES, CommandOutput

from deploys.secrets.env_file import NO_LAB

# RFC 5737, RFC 3849: reserved for documentation, so it can only be what the template had.
_EXAMPLES = [
    *map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),
    ip_network("2001:db8::/32"),
]


def install() -> None:
    """Called by config.py: from now on pyinfra connects by these."""
    ssh.SSHClient = Client  # type: ignore[misc]
    ssh.execute_command_with_sudo_retry = without_a_password


class Client(SSHClient):
    """pyinfra's client. Every failure to connect is one line: the cause, and the file that has to do with it."""

    def connect(self, hostname: str, **options: Any) -> None:  # type: ignore[override]
        config = str(options.get("_pyinfra_ssh_config_file") or "~/.ssh/config")
        known_hosts = str(options.get("_pyinfra_ssh_known_hosts_file") or "~/.ssh/known_hosts")
        self._refuses_unknown = _Unknown(known_hosts)
        found = _lookup(hostname, config)
        address = found.get("hostname", hostname)
        user = options.get("username") or found.get("user", "root")
        keys = [str(path) for path in found.get("identityfile", [])]
        try:
            super().connect(hostname, **options)  # type: ignore[no-untyped-call]
        except BadHostKeyException as error:
            raise ConnectError(
                f"{address} shows another host key than {known_hosts} has: {_fingerprint(error.key)}. Nothing was "
                "changed. A rebuilt droplet has a new key: check it (docs/getting-started.md), then replace its "
                f"line in {known_hosts}. Otherwise stop: somebody may stand between you and the droplet."
            ) from None
        except AuthenticationException:
            with_what = " or ".join(keys) or "the keys of your agent"
            raise ConnectError(
                f"{address} does not let {user} in with {with_what}. Is its public half in the user data that the "
                "droplet was made with, or in the file that authorized_keys of group_data names?"
            ) from None
        except FileNotFoundError as error:
            raise ConnectError(f"{error.filename}, the IdentityFile in {config}, does not exist") from None
        except gaierror:
            raise ConnectError(
                f"there is no host named {address}: correct HostName of {hostname} in {config}"
            ) from None
        except OSError as error:
            raise ConnectError(
                f"no answer from {address}, port {found.get('port', 22)} ({error.strerror or error}). Is the droplet "
                f"on? Is that its address ({config})? Does a cloud firewall or sshd_allowed_from keep this machine "
                "out, or is it banned? docs/how-to/runbook.md, SSH is broken"
            ) from None

    def set_missing_host_key_policy(self, policy: Any) -> None:  # noqa: ARG002 - ours, whatever pyinfra chose
        super().set_missing_host_key_policy(self._refuses_unknown)


class _Unknown(MissingHostKeyPolicy):
    def __init__(self, known_hosts: str) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: ParamikoClient, hostname: str, key: PKey) -> None:  # noqa: ARG002
        raise ConnectError(
            f"{self._known_hosts} has no key of {hostname}, which shows {_fingerprint(key)}. Nothing was changed. "
            "Next: check it, and add its line (docs/getting-started.md)."
        )


def _fingerprint(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _lookup(hostname: str, config: str) -> dict[str, Any]:
    """What the place's ssh_config says of it. Raises ConnectError for one that is missing, or still an example."""
    if not Path(config).expanduser().is_file():
        remedy = NO_LAB if config == ".lab/ssh_config" else f"It says where {hostname} is (docs/getting-started.md)."
        raise ConnectError(f"{config} is missing. {remedy}")
    found: dict[str, Any] = get_ssh_config(config).lookup(hostname)
    address = found.get("hostname", hostname)
    try:
        example = any(ip_address(address) in network for network in _EXAMPLES)
    except ValueError:
        example = False
    if example:
        raise ConnectError(f"{config} still has the example address {address}: put the address of {hostname} there")
    return found


def without_a_password(
    host: Host,
    command_arguments: Any,  # noqa: ARG001 - what pyinfra calls with
    execute_command: Callable[..., tuple[int, CommandOutput]],
) -> tuple[int, CommandOutput]:
    """Run a command. Where sudo wants a password we end: pyinfra would ask for one, and wait for ever."""
    code, output = execute_command()
    if code and any(line.line.strip() in SUDO_PASSWORD_REQUIRED_LINES for line in output.combined_lines):
        login = host.data.get("operator", "the operator")
        raise PyinfraError(
            f"{login} may not become root without a password on {host.name}. This command changed nothing. Next: as "
            f'root put the line "{login} ALL=(ALL:ALL) NOPASSWD: ALL" into /etc/sudoers.d/{login}; a converge keeps it '
            "there (files/base/cloud-init.yaml)."
        )
    return code, output
