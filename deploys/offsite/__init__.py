"""Programs that create, list and prune the off-site repository. They run on the operator's machine."""
