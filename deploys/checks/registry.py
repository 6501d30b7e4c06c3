"""Uses the registry login from the env file to pull the image with the live tag.

A rotation runs this deploy to check a new password.

The droplet holds the new login in memory only. The droplet keeps its old login until the next converge.
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
    # Pull the image by its tag, because for a digest that is already present, Docker does not ask the registry.
    image = shlex.quote(f"{live['image'].partition('@')[0]}:{live['tag']}")
    server.shell(
        name=f"Pull {live['tag']} with the new login",
        commands=[
            'login=$(mktemp -d -p /run) && trap \'rm -r "$login"\' EXIT && cat > "$login/config.json" && '
            f'docker --config "$login" pull --quiet {image}'
        ],
        _stdin=registry_login(settings).decode(),
    )
