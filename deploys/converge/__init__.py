"""The modules of a converge: the connections, the lock, and the checks of a droplet before the first change."""
