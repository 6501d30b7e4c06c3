"""The repository of backups off the droplet, as the operator's machine makes, reads and prunes it."""
