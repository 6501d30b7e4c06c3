"""A converge: its connections, its lock, and what a droplet must be."""
