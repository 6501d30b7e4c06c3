"""What ufw says, read: captured from ufw 0.36.2 on Debian 13."""

from deploys.components.firewall import after_rules, ssh_rules
from deploys.facts.ufw import Firewall, in_our_chains, parse
from tests.unit.places import settings_of

RAW = "-A PREROUTING -d "

ACTIVE = """\
Status: active
Logging: on (low)
Default: deny (incoming), allow (outgoing), deny (routed)
New profiles: skip

To                         Action      From
--                         ------      ----
22/tcp                     ALLOW IN    Anywhere
443/tcp                    ALLOW IN    Anywhere
22/tcp (v6)                ALLOW IN    Anywhere (v6)
# /etc/default/ufw
IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp
ufw deny from 192.0.2.1
-P PREROUTING ACCEPT
-A PREROUTING -i lo -j ACCEPT
-N DOCKER-USER
-A DOCKER-USER -j DROP
-A DOCKER-USER -j RETURN
"""


def test_an_active_firewall() -> None:
    assert parse(ACTIVE.splitlines()) == Firewall(
        active=True,
        policies={"incoming": "deny", "outgoing": "allow", "routed": "deny"},
        rules=("allow 22/tcp", "deny from 192.0.2.1"),
        halves=frozenset({"allow 443/tcp"}),
        loaded=("-A PREROUTING -i lo -j ACCEPT", "-A DOCKER-USER -j DROP"),
    )


def test_an_inactive_firewall_still_has_its_rules() -> None:
    firewall = parse(ACTIVE.replace("Status: active", "Status: inactive").splitlines())
    assert not firewall.active
    assert firewall.rules == ("allow 22/tcp", "deny from 192.0.2.1")


def test_ssh_is_open_to_anybody_or_to_whom_group_data_names() -> None:
    assert ssh_rules(settings_of("prod")) == ["22/tcp"]
    named = settings_of("prod", {"sshd_allowed_from": ["192.0.2.0/24", "198.51.100.7", "2001:db8::/48"]})
    assert ssh_rules(named) == [
        "from 192.0.2.0/24 to any port 22 proto tcp",
        "from 198.51.100.7 to any port 22 proto tcp",
        "from 2001:db8::/48 to any port 22 proto tcp",
    ]


def test_every_range_of_docker_s_is_closed_to_the_wire() -> None:
    settings = settings_of("prod")
    dropped = {line.split()[3] for line in in_our_chains(after_rules(settings).decode().splitlines()) if RAW in line}
    assert dropped >= {str(network) for network in settings.values.docker_networks.values()}
