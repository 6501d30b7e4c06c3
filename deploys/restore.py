"""Puts a backup's data in the place of what is live: `make restore ENV=prod`, and again with YES=the id that it names.

`--data offsite=true` takes one from off the droplet; `--data 'beside="lost"'` restores into a database beside the
live one, which stays as it is.
"""

import shlex

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError
from pyinfra.operations import server

chosen, yes, beside = host.data.get("id", ""), host.data.get("yes", ""), host.data.get("beside", "")
if not all(isinstance(word, str) for word in (chosen, yes, beside)) or not chosen:
    raise PyinfraError("which backup? make restore ID=latest, or --data 'id=\"20251123T023004.123Z\"'")
words = ["stackctl", "restore", chosen, *(["--from-offsite"] if host.data.get("offsite") else [])]
words += ["--to-database", beside] if beside else []
words += ["--yes", yes] if yes else []

state.print_output = True
if "data" in host.groups:
    server.shell(name=f"Restore {chosen}", commands=[shlex.join(words)])
