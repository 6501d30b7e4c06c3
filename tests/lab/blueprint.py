"""What each machine of the lab is made of: a root file system, files laid over it, and commands to finish it."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.lab import authority, keys, network, rootfs, secrets_file
from tests.lab.layout import (
    CHECKOUT, DOMAIN, DROPLETS, ENV_FILE, GATEWAY, MACHINES, NEIGHBOUR, NETWORK4, NETWORK6, WORLD, Machine,
)
from tests.lab.rootfs import Recipe

HERE = Path(__file__).parent
CLOUD_INIT = CHECKOUT / "files/base/cloud-init.yaml"
REGISTRY = f"registry.{DOMAIN}"

WORLD_RECIPE = Recipe(
    name="world",
    packages=(
        *(*rootfs.BASE.packages, "curl", "dnsmasq", "pebble", "python3-aiohttp"),
        *("docker-registry", "apache2-utils", "docker.io", "docker-cli", "docker-buildx", "iptables"),
    ),
    # Docker builds the images and is asleep otherwise.
    commands=(*rootfs.BASE.commands, "systemctl disable docker.service containerd.service"),
)
NEIGHBOUR_RECIPE = Recipe(
    name="neighbour",
    packages=(*rootfs.BASE.packages, "bind9-dnsutils", "curl", "nmap", "openssl"),
    commands=rootfs.BASE.commands,
)
# Other names for the machines, by what they do there.
ALIASES = {DROPLETS[0]: ("bot",), WORLD: ("registry", "acme", "telegram")}


class File(NamedTuple):
    """Content and mode of a file that is laid over the root file system."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Blueprint:
    """How to make a machine. `secrets` is a file kept out of the fingerprint: a new password makes no new machine."""

    recipe: Recipe
    files: dict[str, File]
    commands: tuple[tuple[str, ...], ...] = ()
    secrets: dict[str, File]

    def fingerprint(self) -> str:
        """Changes when what the machine is made of changes."""
        digest = hashlib.sha256(self.recipe.key(rootfs.apt_sources()).encode())
        for path, file in sorted(self.files.items()):
            digest.update(f"{path} {file.mode:o} {len(file.content)}\n".encode() + file.content)
        digest.update(json.dumps(self.commands).encode())
        return digest.hexdigest()
