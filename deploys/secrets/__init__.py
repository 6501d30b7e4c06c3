"""The secrets of the env file: their rules and their ages."""
