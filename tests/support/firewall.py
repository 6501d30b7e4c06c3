"""The declared firewall. Tests change a copy of the declared firewall and check that the difference is found."""

from __future__ import annotations

from hashlib import sha256

from deploys.facts.ufw import Chain, Firewall

AFTER = b"*filter\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -j DROP\nCOMMIT\n"
AFTER_PLACED = {"sha256": sha256(AFTER).hexdigest(), "mode": "640", "owner": "root", "group": "root"}


INPUT, FORWARD = (Chain("iptables", "filter", name) for name in ("INPUT", "FORWARD"))
INPUT6, PREROUTING = Chain("ip6tables", "filter", "INPUT"), Chain("iptables", "raw", "PREROUTING")
CHAINS = {
    FORWARD: ("DROP", "-A FORWARD -j ufw-before-forward"),
    INPUT: ("DROP", "-A INPUT -j ufw-before-input"),
    PREROUTING: ("ACCEPT", "-A PREROUTING -d 127.0.0.0/8 -j DROP"),
    INPUT6: ("DROP", "-A INPUT -j ufw6-before-input"),
}
ALLOWED = Firewall(
    active=True,
    policies={"incoming": "deny"},
    rules=("allow 22/tcp", "allow 80/tcp"),
    declared=CHAINS,
    loaded=CHAINS,
)
