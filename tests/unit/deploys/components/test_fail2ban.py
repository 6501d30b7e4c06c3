"""fail2ban never bans certain addresses, and works on a host without nginx."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploys.components import fail2ban, nginx, ssh
from deploys.components.fail2ban import TELEGRAM, configuration
from tests.support.settings import settings_of


def jail(*, edge: bool = True, **changes: list[str]) -> str:
    return configuration(settings_of("prod", {**changes}), edge=edge)["jail.local"].decode()


def spared(text: str) -> list[str]:
    found = re.search(r"^ignoreip = (.*)$", text, re.MULTILINE)
    assert found
    return found[1].split()


def test_telegram_is_spared_whatever_the_webhook_allows() -> None:
    assert set(TELEGRAM) <= set(spared(jail(webhook_allowed_from=[])))


def test_webhook_clients_and_operators_are_never_banned() -> None:
    never = spared(jail(webhook_allowed_from=["192.0.2.0/28"], trusted_addresses=["2001:db8::7/128"]))
    assert {"192.0.2.0/28", "2001:db8::7/128"} <= set(never)


def test_an_address_that_may_reach_ssh_counts_as_an_operator_s() -> None:
    """One setting keeps both fail2ban and sshd from blocking an address."""
    both, one = ["198.51.100.7", "192.0.2.0/28"], ["192.0.2.0/28"]
    assert {"198.51.100.7/32", "192.0.2.0/28"} <= set(spared(jail(sshd_allowed_from=both, trusted_addresses=one)))
    settings = settings_of("prod", {"sshd_allowed_from": both, "trusted_addresses": one})
    sshd = ssh.configuration(settings).decode().splitlines()
    assert "PerSourcePenaltyExemptList 192.0.2.0/28,198.51.100.7/32" in sshd


def test_a_container_is_spared_since_its_answers_to_nginx_would_be_dropped_too() -> None:
    """fail2ban ignores Docker's ranges, from which containers connect to the host's ports."""
    values = settings_of("prod").values
    never = [ip_network(one) for one in spared(jail())]
    for address in (*values.colours.values(), *values.data_addresses.values()):
        assert any(address in network for network in never)
    assert set(values.docker_networks.values()) <= set(never)


def test_fail2ban_keeps_one_line_of_each_address_in_memory() -> None:
    """By default, fail2ban would keep `maxretry` lines of each address in memory, which is up to a thousand lines."""
    default, *jails = re.split(r"^\[(?!DEFAULT)", jail(), flags=re.MULTILINE)
    assert "maxmatches = 1" in default.splitlines()
    assert not [one for one in jails if "maxmatches" in one]


def test_without_nginx_its_log_is_not_watched() -> None:
    """If nginx's log is missing, fail2ban does not start, and does not watch SSH either."""
    assert "[nginx-refusals]" in jail()
    assert "nginx" not in jail(edge=False)


LINE = "2026-11-23T22:16:57+00:00 192.0.2.7 {}"


@pytest.mark.parametrize(
    ("name", "counted"), [("refusals", {"400", "403", "404", "405", "413", "431", "444"}), ("floods", {"429"})]
)
def test_a_page_of_many_files_counts_for_no_ban(name: str, counted: set[str]) -> None:
    """A visitor who loads many files gets 429.

    For a ban, fail2ban needs ten times as many answers 429 as answers 404.
    """
    text = configuration(settings_of("prod"), edge=True)[f"filter.d/toogoodtogo-{name}.conf"].decode()
    found = re.search(r"^failregex = (.*)$", text, re.MULTILINE)
    assert found
    date = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+\d\d:\d\d"
    assert "datepattern = ^%%Y-%%m-%%dT%%H:%%M:%%S%%z" in text
    line = re.compile(date + found[1].removeprefix("^").replace("<ADDR>", r"(?P<ip>[0-9a-f.:]+)"))
    statuses = ("400", "403", "404", "405", "413", "429", "431", "444")
    assert {status for status in statuses if line.search(LINE.format(status))} == counted
    assert not line.search(LINE.format("404") + " x")


def test_a_ban_of_an_ipv6_address_is_of_its_64_and_spares_the_operator_in_it() -> None:
    settings = settings_of("prod", {"trusted_addresses": ["2001:db8::7/128", "192.0.2.7/32"]})
    action = configuration(settings, edge=True)["action.d/toogoodtogo-nftables.conf"].decode()
    ipv4, ipv6 = action.split("[Init?family=inet6]")
    assert "prefix = /64" in ipv6
    assert r"spared = ip6 saddr != \{ ::1, 2001:db8::7/128 \}" in ipv6
    assert "prefix =\n" in ipv4
    assert jail().count("banaction = toogoodtogo-nftables[type=allports, blocktype=drop]") == 1


COUNTED = re.findall(
    r'"(~\S+)" "?([^";]+)"?;',
    nginx.configuration(settings_of("prod")).decode().partition("map $remote_addr $counted {")[2].partition("}\n")[0],
)
"""The regular expressions in nginx's map of addresses, with named groups in Python's spelling."""
GROUPS = st.lists(st.sampled_from([0, 0, 1, 0xDB8, 0xFFFF]), min_size=7, max_size=7)


def counted(address: str) -> str:
    for pattern, name in COUNTED:
        if found := re.search(pattern[1:].replace("(?<", "(?P<"), address):
            return re.sub(r"\$\{?(\w+)\}?", lambda variable: found[variable[1]], name)
    return address


@given(GROUPS)
@example([0, 0, 0xA, 0xB, 0xC, 0xD, 0xE])
def test_nginx_s_log_has_the_64_of_an_ipv6_client(rest: list[int]) -> None:
    """nginx and Python shorten an IPv6 address in the same way.

    The two shorten the longest run of zero groups, if that run has at least two groups. If several runs are equally
    long, nginx and Python shorten the first run.
    """
    address = IPv6Address(b"".join(group.to_bytes(2, "big") for group in [0x2001, *rest]))
    assert IPv6Address(counted(str(address))) == ip_network((address, 64), strict=False)[0]


def test_nginx_s_log_has_an_ipv4_client_as_it_is() -> None:
    assert len(COUNTED) == 3
    assert counted("192.0.2.7") == "192.0.2.7"


def test_fail2ban_starts_again_with_a_new_configuration() -> None:
    """After a reload, fail2ban 1.1 in Debian 13 lost a new action and banned no client, so fail2ban is restarted."""
    source = Path(fail2ban.__file__).read_text()
    assert '"systemctl restart fail2ban.service"' in source
    assert "reload-or-restart" not in source
