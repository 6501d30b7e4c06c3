"""Deploys with which a rotation checks that a service accepts a new credential."""
