"""Deploys that check whether a new credential is accepted where it is used. A rotation runs them."""
