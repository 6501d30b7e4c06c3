"""Releases an image: `pyinfra inventories/prod.py deploys/release.py --data 'tag="1.2.0"'`."""

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from deploys.cli import verb

tag = host.data.get("tag")
# Quote the tag, because pyinfra reads a value of --data as JSON if possible. Without quotes, the tag 1.10 would become
# the number 1.1.
if not isinstance(tag, str) or not tag:
    raise PyinfraError("Cannot release: no tag was given. Next: make release TAG=1.2.0, or --data 'tag=\"1.2.0\"'")
verb.run(f"Release {tag}", "release", "--", tag, group="app")
