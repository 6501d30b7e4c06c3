"""Puts live what was before: `pyinfra inventories/prod.py deploys/rollback.py`, or that tag: `--data 'tag="1.1.0"'`."""

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from deploys.cli import verb

tag = host.data.get("tag", "")
if not isinstance(tag, str):
    raise PyinfraError("a tag needs quotes of its own: --data 'tag=\"1.1.0\"'")
verb.run(f"Roll back to {tag or 'what was before'}", "rollback", *(["--", tag] if tag else []), group="app")
