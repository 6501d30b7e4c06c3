"""A plan shows what would change, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest
from pyinfra import host
from pyinfra import state as pyinfra_state
from pyinfra.facts.files import FileContents

from deploys.facts.files import FileState
from deploys.facts.ufw import Firewall, Ufw
from deploys.operations import ufw
from deploys.operations.files import atomic_file
from tests.support.firewall import AFTER, AFTER_PLACED, ALLOWED, CHAINS, INPUT, INPUT6
from tests.support.operations import CONTENT, PLACED, Facts, droplet


def planned(facts: Facts, act: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines of `--diff` without colours."""
    shown: list[str] = []
    logger = SimpleNamespace(info=lambda message, *words: shown.append(message % words if words else message))
    monkeypatch.setattr("deploys.operations.files.logger", logger)
    with droplet(facts, executing=False):
        cast("Any", pyinfra_state).config.DIFF = True
        cast("Any", host).log = lambda message, log: log(message)
        list(act())
    return [click.unstyle(line).strip() for line in shown]


ARGUMENTS: dict[str, Any] = {
    "allow": ["22/tcp", "80/tcp"],
    "policies": {"incoming": "deny"},
    "after": AFTER,
}


@pytest.mark.parametrize(
    ("there", "lines"),
    [
        (replace(ALLOWED, rules=(*ALLOWED.rules, "allow 5432")), ["- allow 5432"]),
        (replace(ALLOWED, rules=("allow 22/tcp",)), ["+ allow 80/tcp"]),
        (replace(ALLOWED, policies={"incoming": "allow"}), ["- default allow incoming", "+ default deny incoming"]),
        (replace(ALLOWED, active=False), ["- off", "+ on, now and at boot"]),
        (
            replace(ALLOWED, single_family_rules=frozenset({"allow 80/tcp"})),
            ["- allow 80/tcp (IPv4 or IPv6 only)", "+ allow 80/tcp"],
        ),
        (
            replace(ALLOWED, loaded=CHAINS | {INPUT: ("DROP", "-A INPUT -j ACCEPT")}),
            ["- iptables -t filter -A INPUT -j ACCEPT", "+ iptables -t filter -A INPUT -j ufw-before-input"],
        ),
        (replace(ALLOWED, loaded=CHAINS | {INPUT6: ()}), ["+ ip6tables -t filter -P INPUT DROP"]),
    ],
)
def test_a_firewall_that_differs_is_shown_rule_by_rule(
    monkeypatch: pytest.MonkeyPatch, there: Firewall, lines: list[str]
) -> None:
    shown = planned({Ufw: there, FileState: AFTER_PLACED}, lambda: ufw._changes(**ARGUMENTS), monkeypatch)
    assert shown[0] == "The firewall differs:"
    assert {*lines} <= {line for line in shown[1:] if line[:1] in "+-"}


def test_a_firewall_as_declared_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of ufw's added rules does not matter."""
    there = replace(ALLOWED, rules=ALLOWED.rules[::-1])
    assert planned({Ufw: there, FileState: AFTER_PLACED}, lambda: ufw._changes(**ARGUMENTS), monkeypatch) == []


def test_a_file_that_differs_is_shown_made_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: Facts = {FileState: PLACED | {"sha256": "another"}, FileContents: ["\x1b]0;PWNED\x07\x1b[31m", "x"]}
    shown = planned(facts, lambda: atomic_file._inner(dest="/etc/x", content=CONTENT), monkeypatch)
    assert r"- \x1b]0;PWNED\x07\x1b[31m" in shown
