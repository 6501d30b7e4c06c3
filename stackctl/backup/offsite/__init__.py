"""Backups off the droplet: a restic repository on S3-compatible storage, one snapshot per backup, tagged with its ID.

The droplet's key can only add, so an intruder on the droplet cannot delete the backups. Old ones are deleted from the
operator's side (`make prune`). Some storage services have no such keys, so a probe finds out what the droplet's key may
do (`access.KeyPermissions`). Nothing is taken on trust: each backup that was sent is fetched again and compared.
"""
