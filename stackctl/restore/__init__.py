"""Restores a backup: in the place of the live data, or into a new database."""
