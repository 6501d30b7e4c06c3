"""Puts live what was before: `pyinfra inventories/prod.py deploys/rollback.py`, or that tag: `--data 'tag="1.1.0"'`."""

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server
from stackctl.errors import RefusedError
from stackctl.release import parse

tag = host.data.get("tag", "")
if not isinstance(tag, str):
    raise PyinfraError("a tag needs quotes of its own: --data 'tag=\"1.1.0\"'")
try:
    if tag:
        parse(tag)
except RefusedError as error:
    raise PyinfraError(str(error)) from None

state.print_output = True
if "app" in host.groups:
    server.shell(name=f"Roll back to {tag or 'what was before'}", commands=[f"stackctl rollback {tag}".strip()])
