"""The lab's keys and ssh's configuration, which are never committed."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.lab.host import run
from tests.lab.layout import CHECKOUT, DOT_LAB, Machine

IDENTITY = DOT_LAB / "id_ed25519"
CI_IDENTITY = DOT_LAB / "ci_ed25519"
SSH_CONFIG = DOT_LAB / "ssh_config"
KNOWN_HOSTS = DOT_LAB / "known_hosts"


def make(machines: Iterable[Machine]) -> None:
    """Make the missing keys of the operator, CI and the machines. Write ssh's configuration and known_hosts."""
    machines = list(machines)
    DOT_LAB.mkdir(mode=0o700, exist_ok=True)
    for path, comment in [
        (IDENTITY, "operator of the lab"),
        (CI_IDENTITY, "CI of the lab"),
        *((host_key(machine), machine.name) for machine in machines),
    ]:
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
    SSH_CONFIG.write_text(ssh_config(machines, DOT_LAB))
    KNOWN_HOSTS.write_text(known_hosts({machine: public(host_key(machine)) for machine in machines}))


def host_key(machine: Machine) -> Path:
    """Return the path of a machine's private host key. A new machine of the same name keeps the key."""
    return DOT_LAB / "host_keys" / machine.name


def public(key: Path) -> str:
    """Return the public key as one line without a line end."""
    return key.with_name(f"{key.name}.pub").read_text().strip()


def ssh_config(machines: Iterable[Machine], directory: Path) -> str:
    """Return the configuration for ssh, pyinfra and testinfra; `directory` contains the key and known_hosts."""
    hosts = [f"Host {machine.name}\n  HostName {machine.ipv4}\n  User {machine.user}\n" for machine in machines]
    common = (
        "Host *\n"
        f'  IdentityFile "{directory}/id_ed25519"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{directory}/known_hosts"\n'
        "  GlobalKnownHostsFile none\n"
        "  StrictHostKeyChecking yes\n"
        "  ConnectTimeout 10\n"
    )
    return "\n".join([*hosts, common])


def known_hosts(keys: dict[Machine, str]) -> str:
    """Return each machine's host key under its name and its addresses."""
    lines = []
    for machine, key in keys.items():
        kind, value, *_ = key.split()
        lines.append(f"{machine.name},{machine.ipv4},{machine.ipv6} {kind} {value}\n")
    return "".join(lines)


def give_to_owner(*paths: Path) -> None:
    """Give the checkout's owner the files that root made in it."""
    owner = CHECKOUT.stat()
    for path in paths:
        for entry in [path, *path.rglob("*")]:
            os.chown(entry, owner.st_uid, owner.st_gid)
