"""Replaces a secret of an environment in every place where the secret is used, such as the env file and the droplet."""
