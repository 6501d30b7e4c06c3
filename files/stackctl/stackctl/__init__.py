"""
stackctl: the droplet's own program. It releases, tells, starts and halts the stack; standard library only.

The deploys import paths, state, environment and compose from here; nothing here knows about the deploys.
"""
