"""The production droplet. Its address and user are in prod.ssh_config, and its host key is in prod.known_hosts."""

_droplet = ["prod-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
