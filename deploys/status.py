"""What runs on each droplet, and what is wrong with it: `make status ENV=prod`."""

from deploys.cli import verb

verb.run("Say what runs, and what is wrong with it", "status")
