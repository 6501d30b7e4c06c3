"""Deploys with which a rotation checks that a new credential is accepted where the credential is used."""
