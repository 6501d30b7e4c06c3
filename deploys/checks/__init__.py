"""Checks that a new credential is accepted where it counts. A rotation runs them."""
