"""The lab: a stand-in for DigitalOcean on one machine. See docs/lab.md."""
