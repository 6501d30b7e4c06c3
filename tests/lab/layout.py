"""Names, addresses and paths of the lab."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from tests.lab.host import LabError

CHECKOUT = Path(__file__).resolve().parents[2]
DOT_LAB = CHECKOUT / ".lab"
ENV_FILE = CHECKOUT / ".env.lab"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marketplace-infra"
RUN = Path("/run/marketplace-lab")  # for logs and the lock, which a reboot of this machine deletes
NSPAWN_RUN = Path("/run/systemd/nspawn")  # used by nspawn
STATE = Path("/var/lib/marketplace-lab")  # for the owner and the machines' root file systems, which survive a reboot

BRIDGE = "lab0"
NETWORK4 = IPv4Network("10.77.0.0/24")
NETWORK6 = IPv6Network("fd00:77::/64")
DOMAIN = "lab.test"
MOST_DROPLETS = 9


@dataclass(frozen=True)
class Machine:
    """One machine of the lab. `host` is the last part of its IPv4 and IPv6 addresses, with the same digits in both."""

    name: str
    host: int
    user: str
    is_virtual: bool = False
    """True for a virtual machine (tests/lab/qemu.py). False for a container, which has the kernel of this computer."""

    @property
    def ipv4(self) -> IPv4Address:
        """The address 10.77.0.<host>."""
        return NETWORK4[self.host]

    @property
    def ipv6(self) -> IPv6Address:
        """The address fd00:77::<host>, with the same digits as in v4."""
        return NETWORK6[int(str(self.host), 16)]

    @property
    def interface(self) -> str:
        """The network interface as the host sees it."""
        return f"lab-{self.name}"

    @property
    def root(self) -> Path:
        """The directory of a container's root file system, or of a virtual machine's disk."""
        return STATE / "machines" / self.name

    @property
    def is_droplet(self) -> bool:
        """True for a droplet, which a converge configures. False for world and neighbour."""
        return self.user == "deploy"


GATEWAY = Machine("gateway", 1, "")  # this computer on the lab's network
WORLD = Machine("world", 2, "root")
NEIGHBOUR = Machine("neighbour", 3, "root")
DROPLETS = tuple(Machine(f"droplet{number}", 10 + number, "deploy") for number in range(1, MOST_DROPLETS + 1))
VM = Machine("vm", 20, "deploy", is_virtual=True)
MACHINES = (*DROPLETS, VM, WORLD, NEIGHBOUR)

# Other names of the machines, one for each service.
ALIASES = {"droplet1": ("bot",), "world": ("registry", "acme", "telegram")}


def by_name(name: str) -> Machine:
    """Return the machine with the given name. Raise LabError if there is no such machine."""
    for machine in MACHINES:
        if machine.name == name:
            return machine
    raise LabError(f"The lab has no machine {name!r}. It has {', '.join(machine.name for machine in MACHINES)}.")
