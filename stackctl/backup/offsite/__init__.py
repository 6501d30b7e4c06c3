"""Backups off the droplet: a restic repository on S3-compatible storage, one snapshot per backup, tagged with its ID.

The droplet's key can only add, so an intruder on the droplet cannot delete the backups. Old ones are deleted from the
operator's side (`make prune`). Some storage services have no such keys, so what this key may do is tried
(`access.KeyPermissions`). Nothing is taken on trust: what was sent is fetched again and compared.
"""
