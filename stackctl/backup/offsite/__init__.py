"""Keeps backups in a restic repository on S3-compatible storage.

Each backup is one snapshot, which is tagged with the backup's ID.

The droplet's key can only add objects, so an intruder on the droplet cannot delete the backups. The operator's machine
deletes old backups (`make prune`). Some storage services have no keys that can only add, so a probe finds out what the
droplet's key may do (`access.KeyPermissions`). After each upload, the backup is fetched back and compared.
"""
