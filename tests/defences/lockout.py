"""What an operator gets wrong, by the site's own operations: `pyinfra … tests/defences/lockout.py --data mistake=…`."""

from pyinfra import host, state

from deploys import session
from deploys.components import firewall, ssh
from deploys.operations import ufw
from deploys.operations.trial import tried
from deploys.settings import load_settings

data = host.data.dict()
mistake = data.pop("mistake")
settings = load_settings(data)
session.begin(state, host)
right = ssh.configuration(settings)
admits = f"AllowUsers {settings.values.operator}".encode()
if mistake == "a firewall that denies SSH":
    ufw.in_force(
        name="Let the web in alone",
        allow=firewall.WEB,
        policies={"incoming": "deny"},
        after=firewall.after_rules(settings),
    )
else:
    wrong = {
        "a slip in sshd's configuration": right + b"PermitRootLogni no\n",
        "an sshd that admits nobody": right.replace(admits, b"AllowUsers nobody"),
    }[mistake]
    tried(
        name="Admit nobody",
        trial="ssh",
        files={ssh.drop_in(settings): wrong},
        commands=ssh.IN_FORCE,
        debt=settings.owed("ssh"),
    )
