"""ufw, which pyinfra has no module for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.facts.ufw import Ufw, in_our_chains
from deploys.operations import Commands
from deploys.operations.files import place
from deploys.operations.trial import on_trial

AFTER = "/etc/ufw/after.rules"


@operation()
def in_force(allow: Sequence[str], *, policies: Mapping[str, str], after: bytes) -> Commands:
    """Exactly these rules and policies, now and at boot; undone by itself unless we can still log in.

    + allow: what ufw lets in ("22/tcp", "from 192.0.2.0/24 to any port 22 proto tcp"); rules besides are removed
    + policies: what happens to packets that no rule names, by direction ({"incoming": "deny"})
    + after: after.rules, what ufw can't say itself; compared with what is loaded, too
    """
    yield from on_trial("firewall", list(_changes(allow, policies, after)))


def _changes(allow: Sequence[str], policies: Mapping[str, str], after: bytes) -> Commands:
    there = host.get_fact(Ufw)
    wanted = [f"allow {rule}" for rule in allow]
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
    placing = list(place._inner(dest=AFTER, content=after, mode="640"))  # noqa: SLF001
    yield from placing
    if not there.active:
        yield StringCommand("ufw --force enable")
    elif placing or there.loaded != in_our_chains(after.decode().splitlines()):
        # Not `ufw reload`, which lets everything in for a moment: this replaces a table whole, or leaves it as it was.
        yield StringCommand(f"iptables-restore --noflush --test {AFTER}")
        yield StringCommand(f"iptables-restore --noflush {AFTER}")
