"""Replaces the live data with a backup.

`make restore ENV=prod` shows the plan. With YES=ID, `make restore` carries out the plan.

`--data offsite=true` fetches the backup from the off-site storage. If several snapshots have the same backup ID,
`--data 'snapshot="4f1c2d3e"'` chooses a snapshot. `--data 'beside="lost"'` loads the backup into a new database `lost`,
and does not change the live database.
"""

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from deploys.cli import verb

chosen, yes, beside = host.data.get("id", ""), host.data.get("yes", ""), host.data.get("beside", "")
snapshot = host.data.get("snapshot", "")
if not all(isinstance(word, str) for word in (chosen, yes, beside, snapshot)) or not chosen:
    raise PyinfraError(
        "Cannot restore: no backup was named. Next: make restore ID=latest, or --data 'id=\"20251123T023004.123Z\"'"
    )
words = ["restore", chosen, *(["--from-offsite"] if host.data.get("offsite") else [])]
words += ["--snapshot", snapshot] if snapshot else []
words += ["--to-database", beside] if beside else []
words += ["--yes", yes] if yes else []
verb.run(f"Restore {chosen}", *words, group="data")
