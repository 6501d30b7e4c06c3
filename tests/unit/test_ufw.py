"""What ufw says, read: captured from ufw 0.36.2 on Debian 13."""

from deploys.facts.ufw import Firewall, parse

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
"""


def test_an_active_firewall() -> None:
    assert parse(ACTIVE.splitlines()) == Firewall(
        active=True,
        policies={"incoming": "deny", "outgoing": "allow", "routed": "deny"},
        rules=("allow 22/tcp", "deny from 192.0.2.1"),
        halves=frozenset({"allow 443/tcp"}),
    )


def test_an_inactive_firewall_still_has_its_rules() -> None:
    firewall = parse(ACTIVE.replace("Status: active", "Status: inactive").splitlines())
    assert not firewall.active
    assert firewall.rules == ("allow 22/tcp", "deny from 192.0.2.1")
