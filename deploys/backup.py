"""Makes a backup now, proves it and sends it off the droplet: `make backup ENV=prod`."""

from pyinfra import host, state
from pyinfra.operations import server

state.print_output = True
if "data" in host.groups:
    server.shell(name="Back the data up", commands=["stackctl backup"])
