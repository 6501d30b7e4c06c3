"""Makes an operator's mistakes with the site's own operations: `pyinfra … defences/lockout.py --data mistake=…`."""

from dataclasses import replace

from pyinfra import host, state

from deploys.components import firewall, ssh
from deploys.config.settings import load_settings
from deploys.converge import session
from deploys.operations import ufw
from deploys.operations.trial import RESTART_SSHD, apply_on_trial

# Nobody has the private key, because the 32 bytes of this public key just count up.
SOMEBODY_ELSES = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f somebody\n"

data = host.data.dict()
mistake = data.pop("mistake")
settings = load_settings(data)
session.begin(state, host)
right = ssh.files(settings)
keys, drop_in = right
configuration = right[drop_in].content
admits = f"AllowUsers {settings.values.operator}".encode()
if mistake == "a firewall that denies SSH":
    ufw.rules(
        name="Let the web in alone",
        allow=firewall.WEB,
        policies={"incoming": "deny"},
        after=firewall.after_rules(settings),
    )
else:
    wrong = {
        "a slip in sshd's configuration": {drop_in: configuration + b"PermitRootLogni no\n"},
        "an sshd that cannot start": {drop_in: configuration + b"ListenAddress 192.0.2.1\n"},
        "an sshd that admits nobody": {drop_in: configuration.replace(admits, b"AllowUsers nobody")},
        "a key file without the operator's key": {keys: SOMEBODY_ELSES},
    }[mistake]
    apply_on_trial(
        name="Admit nobody",
        trial="ssh",
        files={path: replace(file, content=wrong.get(path, file.content)) for path, file in right.items()},
        handler=RESTART_SSHD,
    )
