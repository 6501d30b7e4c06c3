"""Opens the repository off the droplet with what the droplet has: a rotation's proof that it counts."""

from pyinfra import host
from pyinfra.operations import server

if "data" in host.groups:
    server.shell(name="Open the repository off the droplet", commands=["stackctl offsite"])
