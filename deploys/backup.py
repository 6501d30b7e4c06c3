"""Backs up the data now, verifies the backup and sends it off-site: `make backup ENV=prod`."""

from deploys.cli import verb

verb.run("Back up the data", "backup", group="data")
