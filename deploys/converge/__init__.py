"""A converge: its connections, its lock, and the checks of a droplet before the first change."""
