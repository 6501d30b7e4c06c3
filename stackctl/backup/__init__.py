"""Makes, verifies, lists, prunes and sends backups."""
