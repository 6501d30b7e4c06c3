"""ufw, which pyinfra has no module for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.facts.ufw import Ufw
from deploys.operations import Commands
from deploys.operations.trial import on_trial


@operation()
def in_force(allow: Sequence[str], *, policies: Mapping[str, str]) -> Commands:
    """Exactly these rules and policies, now and at boot; undone by itself unless we can still log in.

    + allow: ports with their protocol ("22/tcp"); rules besides these are removed
    + policies: what happens to packets that no rule names, by direction ({"incoming": "deny"})
    """
    yield from on_trial("firewall", list(_changes(allow, policies)))


def _changes(allow: Sequence[str], policies: Mapping[str, str]) -> Commands:
    there = host.get_fact(Ufw)
    wanted = [f"allow {port}" for port in allow]
    # Allow before denying and enabling, or the operator is locked out.
    for rule in wanted:
        if rule not in there.rules or (there.active and rule in there.halves):
            yield StringCommand("ufw", rule)
    for rule in there.rules:
        if rule not in wanted:
            of_a_route = rule.startswith("route ")
            yield StringCommand("ufw --force", *(["route delete", rule[6:]] if of_a_route else ["delete", rule]))
    for direction, policy in policies.items():
        if there.policies.get(direction) != policy:
            yield StringCommand("ufw default", policy, direction)
    if not there.active:
        yield StringCommand("ufw --force enable")
