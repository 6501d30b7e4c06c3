"""Asks the app's registry for the live tag, with the login that the droplet has: a rotation's proof that it counts."""

import shlex

from pyinfra import host
from pyinfra.operations import server

from deploys.facts.stackctl import Status

status = host.get_fact(Status) or {}
if live := status.get("release"):
    # By its tag: for a digest that is here already Docker would ask nobody.
    image = f"{live['image'].partition('@')[0]}:{live['tag']}"
    command = shlex.join(["docker", "pull", "--quiet", image])
    server.shell(name=f"Ask the registry for {live['tag']}", commands=[command])
