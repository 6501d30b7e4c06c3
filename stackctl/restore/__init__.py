"""Restores a backup, either in place of the live data, or into a new database."""
