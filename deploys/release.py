"""Puts an image live: `pyinfra inventories/prod.py deploys/release.py --data 'tag="1.2.0"'`."""

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server
from stackctl.errors import RefusedError
from stackctl.release import parse

tag = host.data.get("tag")
# pyinfra reads --data as JSON where it can: without quotes of its own 1.10 would arrive as the number 1.1.
if not isinstance(tag, str):
    raise PyinfraError("which tag is to go live? make release TAG=1.2.0, or --data 'tag=\"1.2.0\"'")
try:
    parse(tag)
except RefusedError as error:
    raise PyinfraError(str(error)) from None

state.print_output = True
if "app" in host.groups:
    server.shell(name=f"Release {tag}", commands=[f"stackctl release {tag}"])
