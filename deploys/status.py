"""Shows what runs on each droplet, and any problems: `make status ENV=prod`."""

from deploys.cli import verb

verb.run("Show what is running, and any problems", "status")
