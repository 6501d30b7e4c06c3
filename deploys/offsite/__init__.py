"""Programs with which the operator's machine creates, lists and prunes the off-site repository."""
