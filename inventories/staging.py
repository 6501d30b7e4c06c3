"""staging's droplet: address and user stand in staging.ssh_config beside this, its host key in staging.known_hosts."""

_droplet = ["staging-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
