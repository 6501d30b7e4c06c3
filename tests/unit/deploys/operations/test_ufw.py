"""The firewall is changed without locking the operator out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from pyinfra.api import OperationError, StringCommand

from deploys.facts.files import FileState
from deploys.facts.ufw import Chain, Firewall, Ufw
from deploys.operations import ufw
from tests.support.firewall import AFTER, AFTER_PLACED, ALLOWED, CHAINS, FORWARD, INPUT, INPUT6, PREROUTING
from tests.support.operations import Facts, commands, droplet

RESTORE = ["iptables-restore --noflush /etc/ufw/after.rules"]


def firewall(there: Firewall, placed: dict[str, str] | None = AFTER_PLACED) -> list[str]:
    """Return the commands between the start and the confirmation of a trial, or no commands if there is no trial."""
    facts: Facts = {Ufw: there, FileState: placed}
    arguments: dict[str, Any] = {"allow": ["22/tcp", "80/tcp"], "policies": {"incoming": "deny"}, "after": AFTER}
    if not (ran := commands(ufw.rules, facts, **arguments)):
        return []
    assert len(ran) > 2, "the trial has no commands"
    return [shlex.split(line)[-1] for line in ran[1:-1]]


def test_a_firewall_as_declared_is_left_alone() -> None:
    assert firewall(ALLOWED) == []


def test_a_new_firewall_allows_before_it_denies_and_is_enabled_last() -> None:
    assert firewall(Firewall()) == [
        "ufw allow 22/tcp",
        "ufw allow 80/tcp",
        "ufw default deny incoming",
        "ufw --force enable",
    ]


def test_a_foreign_rule_goes_after_a_missing_one_came() -> None:
    there = replace(ALLOWED, rules=("allow 22/tcp", "allow 9999/tcp"))
    assert firewall(there) == ["ufw allow 80/tcp", "ufw --force delete allow 9999/tcp"]


def test_a_rule_that_holds_for_one_family_only_is_made_whole() -> None:
    assert firewall(replace(ALLOWED, single_family_rules=frozenset({"allow 80/tcp"}))) == ["ufw allow 80/tcp"]


def test_a_foreign_route_rule_is_deleted_as_one() -> None:
    there = replace(ALLOWED, rules=(*ALLOWED.rules, "route allow in on eth1"))
    assert firewall(there) == ["ufw --force route delete allow in on eth1"]


def test_a_firewall_that_is_off_is_enabled() -> None:
    assert firewall(replace(ALLOWED, active=False)) == ["ufw --force enable"]


def test_rules_after_ufw_s_own_are_placed_before_the_firewall_is_enabled() -> None:
    said = firewall(Firewall(), placed=None)
    assert "/etc/ufw/after.rules.new" in said[-2]
    assert "--test" not in said[-2], "a test would fail, because ufw's first start creates the chains"
    assert said[-1] == "ufw --force enable"


def test_rules_that_changed_are_tested_then_loaded_whole() -> None:
    placing, *rest = firewall(ALLOWED, placed={**AFTER_PLACED, "sha256": "another"})
    test, placed = "iptables-restore --noflush --test /etc/ufw/after.rules.new", "mv -fT /etc/ufw/after.rules.new"
    assert 0 < placing.index(test) < placing.index(placed)
    assert rest == RESTORE


ACCEPT, RAW_EMPTY = ("ACCEPT", "-A INPUT -j ACCEPT"), ("ACCEPT",)
INPUT_BACK = "*filter\n:INPUT DROP [0:0]\n-F INPUT\n-A INPUT -j ufw-before-input\nCOMMIT\n"
RAW_BACK = "*raw\n:PREROUTING ACCEPT [0:0]\n-F PREROUTING\n-A PREROUTING -d 127.0.0.0/8 -j DROP\nCOMMIT\n"
FORWARD_BACK = """\
*filter
:FORWARD DROP [0:0]
:INPUT DROP [0:0]
-D FORWARD -j ACCEPT
-D FORWARD -j ufw-before-forward
-A FORWARD -j ufw-before-forward
-F INPUT
-A INPUT -j ufw-before-input
COMMIT
"""


@pytest.mark.parametrize(
    ("changed", "restored"),
    [
        ({INPUT: ACCEPT}, {"iptables": [INPUT_BACK]}),
        ({INPUT6: ()}, {"ip6tables": [INPUT_BACK.replace("ufw-", "ufw6-")]}),
        ({INPUT: ACCEPT, PREROUTING: RAW_EMPTY}, {"iptables": [INPUT_BACK, RAW_BACK]}),
        # The chain FORWARD is not flushed, so Docker's rules stay in FORWARD. The fact omits Docker's rules.
        (
            {FORWARD: ("DROP", "-A FORWARD -j ACCEPT", *CHAINS[FORWARD][1:]), INPUT: ACCEPT},
            {"iptables": [FORWARD_BACK]},
        ),
    ],
)
def test_rules_changed_in_the_kernel_are_mended_one_table_at_a_time(
    changed: dict[Chain, tuple[str, ...]], restored: dict[str, list[str]]
) -> None:
    there = replace(ALLOWED, loaded=CHAINS | changed)
    with droplet({Ufw: there, FileState: AFTER_PLACED}):
        ran = list(ufw._changes(["22/tcp", "80/tcp"], {"incoming": "deny"}, AFTER))
    found: dict[str, list[str]] = {}
    for command in ran:
        assert isinstance(command, StringCommand)
        program = str(command).removesuffix("-restore --noflush")
        found.setdefault(program, []).append(str(command.connector_arguments["_stdin"]))
    assert found == restored


def test_files_that_ufw_can_t_load_are_no_measure() -> None:
    """A converge fails if ufw cannot load a file of rules, unless the converge rewrites this file."""
    there = replace(ALLOWED, faults=("Problem running '/etc/ufw/after.rules'",), loaded=CHAINS | {INPUT: ACCEPT})
    with pytest.raises(OperationError, match=r"Problem running '/etc/ufw/after\.rules'"):
        firewall(there)
    assert firewall(there, placed=None)[1:] == RESTORE
