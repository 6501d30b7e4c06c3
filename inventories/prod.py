"""prod's droplet: address and user stand in prod.ssh_config beside this, its host key in prod.known_hosts."""

_droplet = ["prod-1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
