"""ufw's state. `ufw status` lists no rule while it is inactive, so the rules are read from `ufw show added`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pyinfra.api import FactBase


@dataclass(frozen=True)
class Firewall:
    """`rules` as one would type them ("allow 22/tcp"); `policies` by direction ("incoming": "deny")."""

    active: bool = False
    policies: dict[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()
    halves: frozenset[str] = frozenset()
    """Of an active firewall: the rules that hold for one of IPv4 and IPv6 only, which `show added` doesn't tell."""
    loaded: tuple[str, ...] = ()
    """What the kernel has in the chains that are ours alone."""


class Ufw(FactBase[Firewall]):
    """ufw's policies and rules; inactive and empty where ufw isn't installed."""

    default = Firewall

    def requires_command(self) -> str:
        return "ufw"

    def command(self) -> str:
        ours = "iptables -t raw -S PREROUTING; iptables -S DOCKER-USER 2>/dev/null || true"
        return f"ufw status verbose; cat /etc/default/ufw; ufw show added; {ours}"

    def process(self, output: Iterable[str]) -> Firewall:
        return parse(output)


_POLICIES = {"DROP": "deny", "ACCEPT": "allow", "REJECT": "reject"}
_DIRECTIONS = {
    "DEFAULT_INPUT_POLICY": "incoming",
    "DEFAULT_OUTPUT_POLICY": "outgoing",
    "DEFAULT_FORWARD_POLICY": "routed",
}


_ALLOWED = re.compile(r"(?P<port>\S+)(?P<six> \(v6\))?\s+ALLOW IN\s+Anywhere")


def parse(output: Iterable[str]) -> Firewall:
    """From the output of the commands above, one after the other."""
    lines = list(output)
    active = False
    policies: dict[str, str] = {}
    rules: list[str] = []
    families: dict[bool, set[str]] = {False: set(), True: set()}
    for line in lines:
        name, _, value = line.partition("=")
        if line == "Status: active":
            active = True
        elif line.startswith("ufw "):
            rules.append(line.removeprefix("ufw ").strip())
        elif name in _DIRECTIONS:
            policies[_DIRECTIONS[name]] = _POLICIES.get(value.strip('"'), value.strip('"').lower())
        elif allowed := _ALLOWED.match(line):
            families[bool(allowed["six"])].add(f"allow {allowed['port']}")
    return Firewall(active, policies, tuple(rules), frozenset(families[False] ^ families[True]), in_our_chains(lines))


def in_our_chains(lines: Iterable[str]) -> tuple[str, ...]:
    """The rules of a rules file, or of `iptables -S`, in the chains that nobody but us and Docker writes to.

    Docker ends DOCKER-USER with a RETURN of its own, which nothing reaches.
    """
    ours = ("-A PREROUTING ", "-A DOCKER-USER ")
    return tuple(line for line in lines if line.startswith(ours) and line != "-A DOCKER-USER -j RETURN")
