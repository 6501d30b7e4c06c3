"""pyinfra's connection to a droplet, with error messages that name the files in use.

pyinfra's own messages name no file. If a host key has changed, pyinfra recommends `ssh-keygen -R`, which edits
~/.ssh/known_hosts instead of the environment's known_hosts file.
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

from deploys import internals
from deploys.internals import SUDO_PASSWORD_REQUIRED_LINES, CommandOutput, SSHClient, get_ssh_config
from deploys.secrets.env_file import NO_LAB

# RFC 5737 and RFC 3849 reserve these networks for documentation, so such an address must come from the template.
_EXAMPLES = [
    *map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),
    ip_network("2001:db8::/32"),
]


def install() -> None:
    """Make pyinfra use this module to connect and to run sudo. config.py calls this function."""
    internals.connect_with(Client, without_a_password)


class Client(SSHClient):
    """pyinfra's SSH client. Each failure to connect is reported in one line, with the cause and the file to correct."""

    def connect(self, hostname: str, **options: Any) -> None:  # type: ignore[override]
        """Connect to a host. Raises ConnectError."""
        config = str(options.get("_pyinfra_ssh_config_file") or "~/.ssh/config")
        known_hosts = str(options.get("_pyinfra_ssh_known_hosts_file") or "~/.ssh/known_hosts")
        self._refuse_unknown = _RefuseUnknown(known_hosts)
        found = _lookup(hostname, config)
        try:
            super().connect(hostname, **options)  # type: ignore[no-untyped-call]
        except BadHostKeyException as error:
            raise ConnectError(_changed_host_key(found.get("hostname", hostname), known_hosts, error.key)) from None
        except AuthenticationException:
            raise ConnectError(_refused_key(hostname, found, options.get("username"))) from None
        except FileNotFoundError as error:
            raise ConnectError(
                f"Cannot connect to {hostname}: {error.filename}, the IdentityFile in {config}, does not exist. "
                f"Next: correct IdentityFile in {config}, or create the key"
            ) from None
        except gaierror:
            raise ConnectError(
                f"Cannot connect to {hostname}: there is no host named {found.get('hostname', hostname)}. "
                f"Next: correct HostName of {hostname} in {config}"
            ) from None
        except OSError as error:
            raise ConnectError(_no_answer(hostname, found, config, error)) from None

    def set_missing_host_key_policy(self, policy: Any) -> None:  # noqa: ARG002 - pyinfra's choice does not matter
        """Refuse unknown host keys, and ignore `policy`."""
        super().set_missing_host_key_policy(self._refuse_unknown)


class _RefuseUnknown(MissingHostKeyPolicy):
    def __init__(self, known_hosts: str) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: ParamikoClient, hostname: str, key: PKey) -> None:  # noqa: ARG002
        raise ConnectError(
            f"{self._known_hosts} has no key of {hostname}. The host's key is {_fingerprint(key)}. "
            "Nothing was changed. "
            f"Next: check the fingerprint and add the key to {self._known_hosts} (docs/getting-started.md)"
        )


def _changed_host_key(address: str, known_hosts: str, key: PKey) -> str:
    return (
        f"{address} shows another host key than {known_hosts} has: {_fingerprint(key)}. Nothing was changed. "
        f"Next: if the droplet was rebuilt, check the fingerprint (docs/getting-started.md) and replace the line in "
        f"{known_hosts}. If the droplet was not rebuilt, stop: somebody may be intercepting the connection"
    )


def _refused_key(hostname: str, found: dict[str, Any], username: str | None) -> str:
    address, user = found.get("hostname", hostname), username or found.get("user", "root")
    keys = " or ".join(map(str, found.get("identityfile", []))) or "the keys of your SSH agent"
    return (
        f"{address} does not let {user} in with {keys}. Nothing was changed. Next: check that the public key is in the "
        "user data that the droplet was created with, or in the file that authorized_keys of group_data names"
    )


def _no_answer(hostname: str, found: dict[str, Any], config: str, error: OSError) -> str:
    address, port = found.get("hostname", hostname), found.get("port", 22)
    return (
        f"There is no answer from {address}, port {port} ({error.strerror or error}). Nothing was changed. Next: check "
        f"that the droplet is on, that {config} has the droplet's address, and that neither a cloud firewall, nor "
        'sshd_allowed_from, nor a ban blocks this machine (docs/how-to/runbook.md, "SSH is broken")'
    )


def _fingerprint(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _lookup(hostname: str, config: str) -> dict[str, Any]:
    """Look up a host in the ssh_config.

    Raises ConnectError if the ssh_config is missing, or still has the example address.
    """
    if not Path(config).expanduser().is_file():
        create = f"Next: create that file, with the address of {hostname} (docs/getting-started.md)"
        remedy = NO_LAB if config == ".lab/ssh_config" else create
        raise ConnectError(f"{config} is missing. {remedy}")
    found: dict[str, Any] = get_ssh_config(config).lookup(hostname)
    address = found.get("hostname", hostname)
    try:
        example = any(ip_address(address) in network for network in _EXAMPLES)
    except ValueError:
        example = False
    if example:
        raise ConnectError(
            f"{config} still has the example address {address}. Next: put the address of {hostname} there"
        )
    return found


def without_a_password(
    host: Host,
    command_arguments: Any,  # noqa: ARG001 - pyinfra passes it
    execute_command: Callable[..., tuple[int, CommandOutput]],
) -> tuple[int, CommandOutput]:
    """Run a command. Raises PyinfraError if sudo asks for a password, because pyinfra would prompt and wait forever."""
    code, output = execute_command()
    if code and any(line.line.strip() in SUDO_PASSWORD_REQUIRED_LINES for line in output.combined_lines):
        login = host.data.get("operator", "the operator")
        raise PyinfraError(
            f"{login} cannot become root without a password on {host.name}. This command changed nothing. Next: as "
            f'root, put the line "{login} ALL=(ALL:ALL) NOPASSWD: ALL" into /etc/sudoers.d/{login}; a converge keeps '
            "that line there (files/base/cloud-init.yaml)"
        )
    return code, output
