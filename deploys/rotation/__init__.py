"""Replaces a secret of an environment: in the env file, on the droplet and wherever else it is used."""
