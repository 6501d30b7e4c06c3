"""fail2ban runs and bans no trusted address. faults/defences/test_bans.py tests real bans."""

from __future__ import annotations

import re
import time
from ipaddress import ip_network

import pytest
from testinfra.host import Host

from tests.support.environment import Environment

pytestmark = pytest.mark.group("edge")

JAILS = ["nginx-floods", "nginx-refusals", "sshd"]
TELEGRAM = ("149.154.160.0/20", "91.108.4.0/22")
"""Telegram's address ranges, from core.telegram.org/bots/webhooks."""


def test_fail2ban_runs_and_starts_at_boot(droplet: Host) -> None:
    service = droplet.service("fail2ban.service")
    assert service.is_running
    assert service.is_enabled


def test_fail2ban_watches_ssh_and_nginx(droplet: Host, env: Environment) -> None:
    """fail2ban reads the logs that sshd and nginx write."""
    listed = droplet.check_output("fail2ban-client status").partition("Jail list:")[2]
    assert sorted(listed.replace(",", " ").split()) == JAILS
    assert str(env.settings.paths.refused_log) in droplet.check_output("fail2ban-client get nginx-refusals logpath")
    assert "_SYSTEMD_UNIT=ssh.service" in droplet.check_output("fail2ban-client get sshd journalmatch")


@pytest.mark.parametrize("jail", JAILS)
def test_telegram_the_operators_and_the_containers_are_never_banned(droplet: Host, env: Environment, jail: str) -> None:
    values = env.settings.values
    spared = re.findall(r"[|`]- (\S+)", droplet.check_output(f"fail2ban-client get {jail} ignoreip"))
    ours = [*values.webhook_allowed_from, *values.exempt_addresses, *values.docker_networks.values()]
    wanted = [*map(ip_network, TELEGRAM), *ours]
    loopback = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
    assert set(map(ip_network, spared)) == {*wanted, *loopback}


@pytest.mark.parametrize("jail", JAILS)
def test_fail2ban_keeps_one_line_of_each_address_in_memory(droplet: Host, jail: str) -> None:
    assert droplet.check_output(f"fail2ban-client get {jail} maxmatches") == "1"


@pytest.mark.parametrize("jail", JAILS)
def test_a_ban_covers_every_port_and_lasts_longer_each_time(droplet: Host, jail: str) -> None:
    action = droplet.check_output(f"fail2ban-client get {jail} actions").splitlines()[-1].strip()
    assert droplet.check_output(f"fail2ban-client get {jail} action {action} blocktype") == "drop"
    assert droplet.check_output(f"fail2ban-client get {jail} action {action} type") == "allports"
    assert droplet.check_output(f"fail2ban-client get {jail} action {action} chain_hook") == "input"
    assert "flags interval" in droplet.check_output(f"fail2ban-client get {jail} action {action} actionstart")


def test_a_ban_of_an_ipv6_address_covers_its_64_except_trusted_addresses(droplet: Host, env: Environment) -> None:
    """Use a documentation address (RFC 3849), which is never assigned. tests/system/faults/defences tests real bans."""
    address, network = "2001:db8:7:7::66", "2001:db8:7:7::/64"
    table = f"nft list table inet f2b-{env.settings.values.app}"
    try:
        droplet.check_output(f"fail2ban-client set sshd banip {address}")
        rules = eventually(droplet, table, network)
        match = r"ip6 saddr != \{ ([^}]*) \} ip6 saddr @addr6-set-sshd drop"
        spared = re.search(match, rules)
        assert spared
        assert "::1" in spared[1].split(", ")
    finally:
        droplet.check_output(f"fail2ban-client unban {address}")


def eventually(droplet: Host, command: str, has: str) -> str:
    """Repeat a command until its output contains `has`, and return the output.

    fail2ban applies bans about once a second.
    """
    for _ in range(20):
        if has in (said := str(droplet.run(command).stdout)):
            return said
        time.sleep(0.5)
    raise AssertionError(f"{has} is not in the output of {command}")


def test_the_log_of_refusals_has_only_refusals_and_no_client_controlled_text(droplet: Host, env: Environment) -> None:
    droplet.run(
        "curl -s -o /dev/null http://127.0.0.1/ -H 'Host: nobody.test'"
    )  # adds a line to the log; fail2ban never bans the loopback address
    lines = droplet.check_output(f"tail -n 200 {env.settings.paths.refused_log}").splitlines()
    assert [line for line in lines if line.endswith(" 127.0.0.1 444")]
    assert not [line for line in lines if not re.fullmatch(r"\S+T\S+ [0-9a-f.:]+ 4\d\d", line)]


def test_the_filter_matches_each_line_of_the_log_of_refusals(droplet: Host, env: Environment) -> None:
    app = env.settings.values.app
    counted = {"refusals": {"404", "403", "400"}, "floods": {"429"}}
    for name, statuses in counted.items():
        program = f"fail2ban-regex '{{}}' /etc/fail2ban/filter.d/{app}-{name}.conf"
        for status in ("404", "403", "400", "429"):
            line = f"2026-11-23T22:16:57+00:00 192.0.2.7 {status}"
            matched = "1 matched, 0 missed" if status in statuses else "0 matched, 1 missed"
            assert matched in droplet.run(program.format(line)).stdout, (name, status)
            assert "0 matched, 1 missed" in droplet.run(program.format(f"{line} x")).stdout
