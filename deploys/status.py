"""What runs on each droplet, and what is wrong with it: `make status ENV=prod`."""

from pyinfra import state
from pyinfra.operations import server

state.print_output = True
server.shell(name="Say what runs, and what is wrong with it", commands=["stackctl status"])
