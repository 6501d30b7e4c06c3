"""
stackctl: the droplet's own program. It releases, tells, starts and halts the stack; standard library only.

What the deploys need as well, from paths to backups' manifests, they import from here; nothing here knows about them.
"""
