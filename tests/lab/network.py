"""The lab's network: a bridge, a way out, and a trap, so that nothing addressed to the lab ever leaves this machine."""

import json
import shutil
from ipaddress import ip_network
from pathlib import Path

from tests.lab.host import LabError, run
from tests.lab.layout import BRIDGE, GATEWAY, MACHINES, NETWORK4, NETWORK6

LAST_RESORT = "4294967295"  # the highest metric: the bridge's own route wins while the bridge is there
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
TABLE = "marketplace_lab"
# The clamp is for machines whose way out carries less than 1500 bytes (VPNs, clouds).
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
# A Docker Engine on this machine lets nothing through that isn't its own, but asks this chain first.
DOCKER_RULES = [f"-i {BRIDGE} -j ACCEPT", f"-o {BRIDGE} -j ACCEPT"]


def up() -> None:
    """Make the network, or what is missing of it."""
    _refuse_taken_addresses()
    for family, network in (("-4", NETWORK4), ("-6", NETWORK6)):
        run("ip", family, "route", "replace", "blackhole", str(network), "metric", LAST_RESORT)
    try:
        if not exists():
            run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("nft", "-f", "-", stdin=f"table ip {TABLE}\ndelete table ip {TABLE}\n{RULES}")
    except LabError as error:
        raise LabError(f"This machine's kernel makes no bridge or no NAT. Next: use a VM.\n{error}") from error
    for address, network in ((GATEWAY.ipv4, NETWORK4), (GATEWAY.ipv6, NETWORK6)):
        run("ip", "address", "replace", f"{address}/{network.prefixlen}", "dev", BRIDGE, "nodad")
    run("ip", "link", "set", BRIDGE, "up")
    _docker("-I")
    IP_FORWARD.write_text("1")


def down(ip_forward: str | None) -> None:
    """Take away all of it; `ip_forward` is the value that this machine had before, when known."""
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
    """True when the bridge is there: without it nothing may be sent to the lab's addresses."""
    return Path("/sys/class/net", BRIDGE).exists()


def attach(interface: str) -> bool:
    """Plug a machine's interface into the bridge; False while it isn't there yet."""
    if not Path("/sys/class/net", interface).exists():
        return False
    run("ip", "link", "set", interface, "master", BRIDGE, "up")
    return True


def unplug(interface: str) -> None:
    """Take away what a machine left of its interface; nothing to do where there is none.

    A network namespace outlives its last process for as long as a connection in it is being closed.
    """
    run("ip", "link", "delete", interface, check=False)


def resolvers() -> list[str]:
    """The host's own name servers as a machine of the lab can reach them: none that listen on the loopback."""
    for file in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if file.exists():
            words = (line.split() for line in file.read_text().splitlines())
            found = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
            reachable = [address for address in found if not address.startswith(("127.", "::1"))]
            if reachable:
                return reachable
    raise LabError(
        "This machine's name server listens on its loopback alone, where the lab's machines can't ask it.\n"
        "Next: name one that they can reach in /etc/resolv.conf."
    )


def _refuse_taken_addresses() -> None:
    """Raise LabError when this machine already uses addresses of the lab for something else."""
    for route in json.loads(run("ip", "-j", "-4", "route")):
        if route["dst"] == "default" or route.get("dev") == BRIDGE or route.get("type") == "blackhole":
            continue
        if ip_network(route["dst"]).subnet_of(NETWORK4):  # type: ignore[arg-type]
            raise LabError(
                f"The lab uses {NETWORK4}, and this machine has a route to {route['dst']} by {route['dev']}."
            )


def _docker(action: str) -> None:
    """Insert (-I) or delete (-D) our rules in the chain that a Docker Engine on this machine leaves to its operator."""
    if shutil.which("iptables") is None:
        return
    present = run("iptables", "-w", "-S", "DOCKER-USER", check=False).splitlines()  # nothing when there is no Docker
    for rule in DOCKER_RULES:
        if present and (f"-A DOCKER-USER {rule}" in present) == (action == "-D"):
            run("iptables", "-w", action, "DOCKER-USER", *rule.split())
