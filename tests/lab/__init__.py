"""The lab: a stand-in for DigitalOcean on one machine. See docs/how-to/lab.md."""
