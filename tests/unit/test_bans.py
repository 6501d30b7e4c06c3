"""fail2ban's configuration: whom it spares, and where there is no nginx."""

from __future__ import annotations

import re
from ipaddress import ip_network

from deploys.components import ssh
from deploys.components.bans import TELEGRAM, configuration
from tests.unit.places import settings_of


def jail(*, edge: bool = True, **changes: list[str]) -> str:
    return configuration(settings_of("prod", {**changes}), edge=edge)["jail.local"].decode()


def spared(text: str) -> list[str]:
    found = re.search(r"^ignoreip = (.*)$", text, re.MULTILINE)
    assert found
    return found[1].split()


def test_telegram_is_spared_whatever_the_webhook_allows() -> None:
    assert set(TELEGRAM) <= set(spared(jail(webhook_allowed_from=[])))


def test_whom_the_webhook_is_for_and_the_operators_are_spared() -> None:
    never = spared(jail(webhook_allowed_from=["192.0.2.0/28"], never_banned=["2001:db8::7/128"]))
    assert {"192.0.2.0/28", "2001:db8::7/128"} <= set(never)


def test_who_alone_may_reach_ssh_is_an_operator() -> None:
    """Named once, and spared by fail2ban and by sshd itself."""
    both, one = ["198.51.100.7", "192.0.2.0/28"], ["192.0.2.0/28"]
    assert {"198.51.100.7/32", "192.0.2.0/28"} <= set(spared(jail(sshd_allowed_from=both, never_banned=one)))
    settings = settings_of("prod", {"sshd_allowed_from": both, "never_banned": one})
    sshd = ssh.configuration(settings).decode().splitlines()
    assert "PerSourcePenaltyExemptList 192.0.2.0/28,198.51.100.7/32" in sshd


def test_a_container_is_spared_since_its_answers_to_nginx_would_be_dropped_too() -> None:
    """What a container asks of the host's own ports, the host sees from these ranges."""
    values = settings_of("prod").values
    never = [ip_network(one) for one in spared(jail())]
    for address in (*values.colours.values(), *values.data_addresses.values()):
        assert any(address in network for network in never)
    assert set(values.docker_networks.values()) <= set(never)


def test_without_nginx_its_log_is_not_watched() -> None:
    """fail2ban doesn't start when a log is missing, and SSH would be watched no more."""
    assert "[nginx-refusals]" in jail()
    assert "nginx" not in jail(edge=False)
