"""Puts an image live: `pyinfra inventories/prod.py deploys/release.py --data 'tag="1.2.0"'`."""

import shlex

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server

tag = host.data.get("tag")
# pyinfra reads --data as JSON where it can: without quotes of its own 1.10 would arrive as the number 1.1.
if not isinstance(tag, str) or not tag:
    raise PyinfraError("which tag is to go live? make release TAG=1.2.0, or --data 'tag=\"1.2.0\"'")

state.print_output = True
if "app" in host.groups:
    server.shell(name=f"Release {tag}", commands=[shlex.join(["stackctl", "release", "--", tag])])
