"""The lab's network has a bridge, NAT, and blackhole routes, so that no packet for the lab ever leaves this machine."""

import json
import shutil
from ipaddress import ip_network
from pathlib import Path

from tests.lab.host import LabError, run
from tests.lab.layout import BRIDGE, GATEWAY, MACHINES, NETWORK4, NETWORK6

LAST_RESORT = "4294967295"  # with this highest metric, the bridge's own route wins while the bridge exists
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
TABLE = "marketplace_lab"
# The chain `clamp` is for hosts whose uplink has an MTU below 1500 bytes, as in VPNs and clouds.
RULES = f"""
table ip {TABLE} {{
    chain out {{
        type nat hook postrouting priority srcnat
        ip saddr {NETWORK4} ip daddr != {NETWORK4} masquerade
    }}
    chain clamp {{
        type filter hook forward priority mangle
        iifname {BRIDGE} tcp flags syn tcp option maxseg size set rt mtu
    }}
}}
"""
# A Docker Engine on this machine drops all forwarded packets except its own, but consults this chain first.
DOCKER_RULES = [f"-i {BRIDGE} -j ACCEPT", f"-o {BRIDGE} -j ACCEPT"]


def up() -> None:
    """Make the parts of the network that are missing."""
    _refuse_taken_addresses()
    for family, network in (("-4", NETWORK4), ("-6", NETWORK6)):
        run("ip", family, "route", "replace", "blackhole", str(network), "metric", LAST_RESORT)
    try:
        if not exists():
            run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("nft", "-f", "-", stdin=f"table ip {TABLE}\ndelete table ip {TABLE}\n{RULES}")
    except LabError as error:
        raise LabError(f"This machine's kernel supports no bridge or no NAT. Next: use a VM.\n{error}") from error
    for address, network in ((GATEWAY.ipv4, NETWORK4), (GATEWAY.ipv6, NETWORK6)):
        run("ip", "address", "replace", f"{address}/{network.prefixlen}", "dev", BRIDGE, "nodad")
    run("ip", "link", "set", BRIDGE, "up")
    _docker("-I")
    IP_FORWARD.write_text("1")


def down(ip_forward: str | None) -> None:
    """Remove the lab's network, and restore this machine's former value `ip_forward`, if it is known."""
    if exists():
        run("ip", "link", "delete", BRIDGE)
    for known in MACHINES:
        unplug(known.interface)
    if run("nft", "list", "tables", "ip").find(TABLE) >= 0:
        run("nft", "delete", "table", "ip", TABLE)
    _docker("-D")
    if ip_forward is not None:
        IP_FORWARD.write_text(ip_forward)
    for family, network in (("-4", NETWORK4), ("-6", NETWORK6)):
        run("ip", family, "route", "delete", "blackhole", str(network), "metric", LAST_RESORT, check=False)


def exists() -> bool:
    """Return whether the bridge exists. Without the bridge, send nothing to the lab's addresses."""
    return Path("/sys/class/net", BRIDGE).exists()


def attach(interface: str) -> bool:
    """Plug a machine's interface into the bridge. Return False if the interface does not exist yet."""
    if not Path("/sys/class/net", interface).exists():
        return False
    run("ip", "link", "set", interface, "master", BRIDGE, "up")
    return True


def unplug(interface: str) -> None:
    """Delete a machine's interface if it still exists.

    A network namespace outlives its last process while a connection in it is being closed.
    """
    run("ip", "link", "delete", interface, check=False)


def resolvers() -> list[str]:
    """Return the host's name servers, except those on the loopback, which the lab's machines could not reach."""
    for file in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if file.exists():
            words = (line.split() for line in file.read_text().splitlines())
            found = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
            reachable = [address for address in found if not address.startswith(("127.", "::1"))]
            if reachable:
                return reachable
    raise LabError(
        "This machine's name server listens only on the loopback, where the lab's machines cannot reach it.\n"
        "Next: name one that they can reach in /etc/resolv.conf."
    )


def _refuse_taken_addresses() -> None:
    """Raise LabError if this machine already uses addresses of the lab for something else."""
    for route in json.loads(run("ip", "-j", "-4", "route")):
        if route["dst"] == "default" or route.get("dev") == BRIDGE or route.get("type") == "blackhole":
            continue
        if ip_network(route["dst"]).subnet_of(NETWORK4):  # type: ignore[arg-type]
            raise LabError(
                f"The lab uses {NETWORK4}, and this machine has a route to {route['dst']} on {route['dev']}."
            )


def _docker(action: str) -> None:
    """Insert (-I) or delete (-D) our rules in the chain that a Docker Engine on this machine leaves to operators."""
    if shutil.which("iptables") is None:
        return
    present = run("iptables", "-w", "-S", "DOCKER-USER", check=False).splitlines()  # empty without Docker
    for rule in DOCKER_RULES:
        if present and (f"-A DOCKER-USER {rule}" in present) == (action == "-D"):
            run("iptables", "-w", action, "DOCKER-USER", *rule.split())
