"""Shows what runs on each droplet, and any problems: `make status ENV=prod`."""

from deploys.cli import verb

verb.run("Show what runs, and any problems", "status")
