"""The staging droplet. Its address and user are in staging.ssh_config, and its host key is in staging.known_hosts."""

_droplet = ["staging-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
