"""The droplet of staging. staging.ssh_config has its address and user, staging.known_hosts its host key."""

_droplet = ["staging-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
