"""Releases and rollbacks."""
