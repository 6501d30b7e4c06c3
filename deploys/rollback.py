"""Makes the previous release live again: `pyinfra inventories/prod.py deploys/rollback.py`.

`--data 'tag="1.1.0"'` chooses a release by its tag.
"""

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from deploys.cli import verb

tag = host.data.get("tag", "")
if not isinstance(tag, str):
    raise PyinfraError("Cannot roll back: the tag is a number. Next: quote the tag, for example --data 'tag=\"1.1\"'")
verb.run(f"Roll back to {tag or 'the previous release'}", "rollback", *(["--", tag] if tag else []), group="app")
