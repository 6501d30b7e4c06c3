"""The virtual machine of the lab (tests/lab/qemu.py). It is in every group."""

_droplet = ["vm"]

edge = _droplet
app = _droplet
data = _droplet
monitor = _droplet
