"""The off-site repository, as the operator's machine creates, lists and prunes it."""
