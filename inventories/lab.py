"""The droplets of the lab (tests/lab). One droplet is in every group."""

_droplet = ["droplet1"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
