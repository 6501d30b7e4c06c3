"""Names that come from outside, as patterns: whatever claims to be one is matched before it is used."""

TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
"""A tag, as registries have it: whatever claims to be one is matched against this, wherever it came from."""
