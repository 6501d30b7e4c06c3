"""Blueprints of the lab's machines: each has a root file system, files to add and commands to run at the end."""

import hashlib
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import bcrypt

from tests.lab import authority, keys, network, qemu, rootfs, secrets_file
from tests.lab.layout import ALIASES, CHECKOUT, DOMAIN, ENV_FILE, GATEWAY, MACHINES, NETWORK4, NETWORK6, WORLD, Machine
from tests.lab.rootfs import BASE, Recipe

HERE = Path(__file__).parent
CLOUD_INIT = CHECKOUT / "files/base/cloud-init.yaml"
REGISTRY_USER = "deploy"
HTPASSWD = "etc/docker/registry/htpasswd"
TOKENS = "etc/telegram/tokens"
S3_KEYS = "etc/s3/keys"
S3_OPERATOR = "etc/s3/operator.conf"
CGROUPS = "etc/systemd/system/lab-cgroups.service"
RCLONE = Path(sys.executable).parent / "rclone"

AROUND = Recipe(
    name="world",
    packages=(
        # chrony serves the time, and cannot be installed beside systemd-timesyncd.
        *(package for package in BASE.packages if package != "systemd-timesyncd"),
        *("chrony", "curl", "dnsmasq", "pebble", "python3-aiohttp"),
        *("docker-registry", "docker.io", "docker-cli", "docker-buildx", "iptables", "nginx"),
    ),
    # Docker starts only to build images. nginx runs only as the proxy of the S3 store (s3-door.service).
    commands=(*BASE.commands, "systemctl disable docker.service containerd.service nginx.service"),
)
ATTACKER = Recipe(
    name="neighbour",
    # tests/system/audit runs testssl.sh on neighbour, and copies lynis from neighbour to the droplet.
    packages=(*BASE.packages, "bind9-dnsutils", "curl", "lynis", "nmap", "openssl", "testssl.sh"),
    commands=(*BASE.commands, "systemctl disable lynis.timer"),
)


class File(NamedTuple):
    """A file to add to the root file system."""

    content: bytes
    mode: int = 0o644


Files = dict[str, File]  # the key is a path without the leading slash


@dataclass(frozen=True)
class Blueprint:
    """A machine's root file system, files and commands."""

    recipe: Recipe
    files: Files
    identity: Files  # keys, passwords and IDs, which are not part of the fingerprint
    commands: tuple[str, ...]  # run by the new root's own shell

    def fingerprint(self) -> str:
        """Return a digest that changes when the machine must be rebuilt."""
        digest = hashlib.sha256(self.recipe.key(rootfs.apt_sources()).encode())
        for path, file in sorted(self.files.items()):
            digest.update(f"{path} {file.mode:o} {len(file.content)} ".encode() + file.content)
        digest.update(repr(self.commands).encode())
        return digest.hexdigest()


def of(machine: Machine) -> Blueprint:
    """Return the blueprint of a machine."""
    if machine.is_droplet:
        return droplet(machine)
    return world() if machine == WORLD else neighbour(machine)


def droplet(machine: Machine) -> Blueprint:
    """Return the blueprint of a droplet as DigitalOcean creates it. A cloud-init seed replaces the metadata service."""
    seed = "var/lib/cloud/seed/nocloud"
    user_data = CLOUD_INIT.read_text().replace("OPERATOR_PUBLIC_KEY", keys.public(keys.IDENTITY))
    files = {f"{seed}/vendor-data": _text("#cloud-config\nmanage_etc_hosts: true\n")}
    identity = {
        f"{seed}/user-data": _text(user_data),
        f"{seed}/meta-data": _text(f"instance-id: {uuid.uuid4()}\nlocal-hostname: {machine.name}\n"),
    }
    files |= _common(machine)
    if machine.is_virtual:
        del files[CGROUPS]
        return Blueprint(qemu.ROOT, files | {"etc/fstab": _text(qemu.FSTAB)}, _host_key(machine) | identity, ())
    return Blueprint(BASE, files, _host_key(machine) | identity, ENABLE)


def world() -> Blueprint:
    """Return the blueprint of world: DNS, time, ACME, registry, Telegram and S3 store (tests/lab/world)."""
    files = _around(WORLD) | {
        "etc/dnsmasq.d/hosts.conf": _text(dnsmasq_hosts() + "".join(f"server={ip}\n" for ip in network.resolvers())),
        "etc/lab/world.crt": File(authority.WORLD_CERTIFICATE.read_bytes()),
        "etc/lab/world.key": File(authority.key_of(authority.WORLD_CERTIFICATE).read_bytes(), 0o600),
        "opt/rclone/rclone": File(RCLONE.read_bytes(), 0o755),
        **_tree(HERE / "world/telegram", "opt/telegram/telegram", "*.py"),
        **_tree(HERE / "world/etc", "etc"),
    }
    identity = _host_key(WORLD) | world_secrets()
    services = "systemctl enable chrony dnsmasq pebble acme.socket docker-registry docker.socket telegram s3 s3-door"
    return Blueprint(AROUND, files, identity, (*ENABLE, TRUST, services))


def world_secrets() -> Files:
    """Return the files with the credentials that world accepts."""
    secrets = secrets_file.read(ENV_FILE)
    password = bcrypt.hashpw(secrets["REGISTRY_PASSWORD"].encode(), bcrypt.gensalt(rounds=5)).decode()
    return {
        HTPASSWD: _text(f"{REGISTRY_USER}:{password}\n"),
        TOKENS: File(f"{secrets['TELEGRAM_BOT_TOKEN']}\n".encode(), 0o600),
        S3_KEYS: File(_s3_keys(secrets).encode(), 0o600),
        S3_OPERATOR: _text(f"map $key $operator {{\n    default 0;\n    {secrets['OFFSITE_OPERATOR_KEY_ID']} 1;\n}}\n"),
    }


def _s3_keys(secrets: dict[str, str]) -> str:
    """Return rclone's two --auth-key values as an environment file for systemd."""
    pairs = (
        f'"{secrets[f"{whose}_ID"]},{secrets[f"{whose}_SECRET"]}"' for whose in ("OFFSITE_KEY", "OFFSITE_OPERATOR_KEY")
    )
    return f"RCLONE_AUTH_KEY='{','.join(pairs)}'\n"


def neighbour(machine: Machine) -> Blueprint:
    """Return the blueprint of another customer's machine on the droplets' network: a client and an attacker."""
    return Blueprint(ATTACKER, _around(machine), _host_key(machine), (*ENABLE, TRUST))


ENABLE = ("systemctl enable lab-cgroups.service",)
TRUST = "update-ca-certificates"


def dnsmasq_hosts() -> str:
    """Return every name of the lab with its IPv4 and IPv6 address in dnsmasq's format."""
    lines = []
    for machine in MACHINES:
        for name in (machine.name, *ALIASES.get(machine.name, ())):
            lines.append(f"host-record={name}.{DOMAIN},{machine.ipv4},{machine.ipv6}\n")
    return "".join(lines)


def network_file(machine: Machine) -> str:
    """Return systemd-networkd's file with static addresses, as at DigitalOcean. IPv6 is not routed out of the lab."""
    return (
        "[Match]\nName=eth0\n\n"
        "[Network]\n"
        f"Address={machine.ipv4}/{NETWORK4.prefixlen}\n"
        f"Gateway={GATEWAY.ipv4}\n"
        f"NTP={WORLD.ipv4}\n"
        "IPv6AcceptRA=no\n\n"
        "[Address]\n"
        f"Address={machine.ipv6}/{NETWORK6.prefixlen}\n"
        # Without this line, a connection during the detection of duplicates would use another source address and hang.
        "DuplicateAddressDetection=none\n"
    )


def resolv_conf(resolvers: list[str]) -> str:
    """Return resolv.conf with two kinds of name servers.

    World comes first, because only world knows the lab's names. The host's name servers come next, and answer while
    world is off.
    """
    servers = [str(WORLD.ipv4), *resolvers][:3]  # the resolver library reads at most three
    return "".join(f"nameserver {server}\n" for server in servers) + "options timeout:1 attempts:2\n"


def _common(machine: Machine) -> Files:
    return _tree(HERE / "base", "") | {
        "etc/systemd/network/10-eth0.network": _text(network_file(machine)),
        "etc/resolv.conf": _text(resolv_conf(network.resolvers())),
    }


def _around(machine: Machine) -> Files:
    """Return the files of world or neighbour.

    The files disable cloud-init, admit root over SSH and make the machine trust the lab's CA.
    """
    return _common(machine) | {
        "etc/cloud/cloud-init.disabled": _text(""),
        "etc/hostname": _text(f"{machine.name}\n"),
        "etc/hosts": _text(f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n::1 localhost\n"),
        "root/.ssh/authorized_keys": _text(f"{keys.public(keys.IDENTITY)}\n"),
        "usr/local/share/ca-certificates/lab.crt": File(authority.CA.read_bytes()),
    }


def _host_key(machine: Machine) -> Files:
    key = keys.host_key(machine)
    path = "etc/ssh/ssh_host_ed25519_key"
    return {path: File(key.read_bytes(), 0o600), f"{path}.pub": _text(f"{keys.public(key)}\n")}


def _tree(directory: Path, target: str, pattern: str = "*") -> Files:
    """Return the files below `directory`, with their paths below `target` on the machine."""
    found = (file for file in directory.rglob(pattern) if file.is_file())
    return {str(Path(target, file.relative_to(directory))): File(file.read_bytes()) for file in found}


def _text(text: str) -> File:
    return File(text.encode())
