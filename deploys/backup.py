"""Makes a backup now, proves it and sends it off the droplet: `make backup ENV=prod`."""

from deploys.cli import verb

verb.run("Back the data up", "backup", group="data")
