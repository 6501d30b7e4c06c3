"""Makes, verifies, lists and prunes backups, and sends them off the droplet."""
