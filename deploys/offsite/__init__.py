"""Programs for the operator's machine that create, list and prune the off-site repository."""
