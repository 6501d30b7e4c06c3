"""Asks the app's registry for the live tag, with the login that the env file declares: a rotation's proof.

The login stands in memory alone meanwhile: what the droplet has stays until a converge.
"""

import shlex

from pyinfra import host
from pyinfra.operations import server

from deploys.components.docker import registry_login
from deploys.config.settings import load_settings
from deploys.facts.stackctl import Status

settings = load_settings(host.data.dict())
status = host.get_fact(Status) or {}
if live := status.get("release"):
    # By its tag: for a digest that is here already Docker would ask nobody.
    image = shlex.quote(f"{live['image'].partition('@')[0]}:{live['tag']}")
    server.shell(
        name=f"Ask the registry for {live['tag']} with the new login",
        commands=[
            'login=$(mktemp -d -p /run) && trap \'rm -r "$login"\' EXIT && cat > "$login/config.json" && '
            f'docker --config "$login" pull --quiet {image}'
        ],
        _stdin=registry_login(settings).decode(),
    )
