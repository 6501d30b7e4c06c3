"""The operation for ufw's rules and policies. pyinfra itself has no module for ufw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pyinfra import host, state
from pyinfra.api import OperationError, StringCommand, operation

from deploys.facts.ufw import Chain, Chains, Firewall, Ufw
from deploys.operations import Commands, declared
from deploys.operations.files import atomic_file, show_difference
from deploys.operations.trial import on_trial

AFTER = "/etc/ufw/after.rules"


@operation()
def rules(allow: Sequence[str], *, policies: Mapping[str, str], after: bytes) -> Commands:
    """Set exactly these rules and policies, now and at boot.

    Unless a new login succeeds, the droplet reverts the change.

    + allow: rules that let packets in ("22/tcp", "from 192.0.2.0/24 to any port 22 proto tcp"); ufw's other rules are
      removed
    + policies: the policy for packets that match no rule, by direction ({"incoming": "deny"})
    + after: content of after.rules, which has the rules that no command of ufw can set

    If somebody used iptables to change chains in the kernel only, the operation first restores these chains.
    """
    declared.of(host).ports |= {_port(rule) for rule in allow}
    yield from on_trial("firewall", list(_changes(allow, policies, after)))


def _port(rule: str) -> int:
    """Return the port in a rule such as "22/tcp" or "from … to any port 22 proto tcp"."""
    return int(rule.partition(" port ")[2].split()[0] if " port " in rule else rule.partition("/")[0])


def _changes(allow: Sequence[str], policies: Mapping[str, str], after: bytes) -> Commands:
    there = host.get_fact(Ufw)
    # Before ufw's first start, the rules can't be tested, because the rules jump to chains that do not exist yet.
    test = "iptables-restore --noflush --test %s" if there.active else None
    placing = list(atomic_file._inner(dest=AFTER, content=after, mode="640", validate=test))  # noqa: SLF001
    if there.faults and not placing:
        raise OperationError(
            f"ufw can't load its own files: {'; '.join(there.faults)}. Next: sudo ufw reload, which shows the reason"
        )
    if there.active and not there.faults:
        yield from _reload_changed_chains(there)
    wanted = [f"allow {rule}" for rule in allow]
    if state.config.DIFF and (differing := _lines_in_force(there)) != (
        declared := _lines_declared(there, wanted, policies)
    ):
        show_difference("The firewall", differing, declared)
    # Add the allowing rules before the deny policy and before `ufw enable`, so that the operator is not locked out.
    for rule in wanted:
        if rule not in there.rules or (there.active and rule in there.single_family_rules):
            yield StringCommand("ufw", rule)
    for rule in there.rules:
        if rule not in wanted:
            of_a_route = rule.startswith("route ")
            yield StringCommand("ufw --force", *(["route delete", rule[6:]] if of_a_route else ["delete", rule]))
    for direction, policy in policies.items():
        if there.policies.get(direction) != policy:
            yield StringCommand("ufw default", policy, direction)
    yield from placing
    if not there.active:
        yield StringCommand("ufw --force enable")
    elif placing:
        # Do not use `ufw reload`, which lets everything in for a moment. In contrast, iptables-restore replaces a whole
        # table in one step, or changes nothing.
        yield StringCommand(f"iptables-restore --noflush {AFTER}")


def _lines_in_force(there: Firewall) -> list[str]:
    """Return the rules and policies in force as lines for `--diff`.

    The lines are sorted, because ufw's own order may vary.
    """
    rules = [f"{rule}{' (IPv4 or IPv6 only)' if rule in there.single_family_rules else ''}" for rule in there.rules]
    return [
        "on, now and at boot" if there.active else "off",
        *(f"default {policy} {direction}" for direction, policy in sorted(there.policies.items())),
        *sorted(rules),
        *_changed_rules(there, there.loaded),
    ]


def _lines_declared(there: Firewall, wanted: Sequence[str], policies: Mapping[str, str]) -> list[str]:
    return [
        "on, now and at boot",
        *(f"default {policy} {direction}" for direction, policy in sorted({**there.policies, **policies}.items())),
        *sorted(wanted),
        *_changed_rules(there, there.declared),
    ]


def _changed_rules(there: Firewall, chains: Chains) -> list[str]:
    """For every chain that somebody changed with iptables, return the rules that `chains` has for the chain."""
    return [
        f"{chain.program} -t {chain.table} {rule if number else f'-P {chain.name} {rule}'}"
        for chain in there.declared
        if there.active and not there.faults and there.loaded[chain] != there.declared[chain]
        for number, rule in enumerate(chains[chain])
    ]


def _reload_changed_chains(there: Firewall) -> Commands:
    """Restore the changed chains from ufw's files, one table at a time.

    After `iptables -F`, `ufw reload` would shut everybody out: the policy denies everything, and ufw adds the jumps to
    its own chains only when ufw creates the chains.
    """
    differing = [chain for chain in there.declared if there.loaded[chain] != there.declared[chain]]
    for (program, table), chains in groupby(differing, lambda chain: (chain.program, chain.table)):
        lines = [line for chain in chains for line in _chain_lines(there, chain)]
        text = "\n".join([f"*{table}", *sorted(lines, key=lambda line: not line.startswith(":")), "COMMIT", ""])
        yield StringCommand(f"{program}-restore --noflush", _stdin=text)


def _chain_lines(there: Firewall, chain: Chain) -> list[str]:
    policy, *rules = there.declared[chain]
    # Do not flush the chain FORWARD, because FORWARD also contains Docker's rules.
    shared = (chain.table, chain.name) == ("filter", "FORWARD")
    gone = [f"-D{rule[2:]}" for rule in there.loaded[chain][1:]] if shared else [f"-F {chain.name}"]
    return [f":{chain.name} {policy} [0:0]", *gone, *rules]
