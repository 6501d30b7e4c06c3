"""Puts live what was before: `pyinfra inventories/prod.py deploys/rollback.py`, or that tag: `--data 'tag="1.1.0"'`."""

import shlex

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server

tag = host.data.get("tag", "")
if not isinstance(tag, str):
    raise PyinfraError("a tag needs quotes of its own: --data 'tag=\"1.1.0\"'")

state.print_output = True
if "app" in host.groups:
    words = ["stackctl", "rollback", *(["--", tag] if tag else [])]
    server.shell(name=f"Roll back to {tag or 'what was before'}", commands=[shlex.join(words)])
