"""Opens the off-site repository with the droplet's credentials.

A rotation runs this deploy to check new credentials.
"""

from pyinfra import host
from pyinfra.operations import server

if "data" in host.groups:
    server.shell(name="Open the off-site repository", commands=["stackctl check-offsite"])
