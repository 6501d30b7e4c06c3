"""Puts an image live: `pyinfra inventories/prod.py deploys/release.py --data tag=1.2.0`, or `make release`."""

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server
from stackctl.release import TAG

tag = str(host.data.get("tag") or "")
if not TAG.fullmatch(tag):
    raise PyinfraError("which tag is to go live? make release TAG=1.2.0")

state.print_output = True
if "app" in host.groups:
    server.shell(name=f"Release {tag}", commands=[f"stackctl release {tag}"])
