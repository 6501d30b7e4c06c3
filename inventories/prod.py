"""The droplet of prod. prod.ssh_config has its address and user, prod.known_hosts its host key."""

_droplet = ["prod-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
