"""ufw, which pyinfra has no module for. Allow before enabling, or the operator locks themselves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.facts.ufw import Ufw
from deploys.operations import Commands


@operation()
def rules(allow: Sequence[str]) -> Commands:
    """Allows exactly `allow` ("22/tcp"); rules besides these are removed."""
    wanted = [f"allow {port}" for port in allow]
    there = host.get_fact(Ufw).rules
    for rule in wanted:
        if rule not in there:
            yield StringCommand("ufw", rule)
    for rule in there:
        if rule not in wanted:
            yield StringCommand("ufw --force delete", rule)


@operation()
def policies(defaults: Mapping[str, str]) -> Commands:
    """What happens to packets that no rule names, by direction: {"incoming": "deny"}."""
    there = host.get_fact(Ufw).policies
    for direction, policy in defaults.items():
        if there.get(direction) != policy:
            yield StringCommand("ufw default", policy, direction)


@operation()
def enabled() -> Commands:
    """Puts the rules in force, now and at boot."""
    if not host.get_fact(Ufw).active:
        yield StringCommand("ufw --force enable")
