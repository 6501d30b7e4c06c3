"""The secrets in the env file, with rules for their values, and with their ages."""
