"""Manages the app on the droplet: the state, app environment, containers, schema and webhook."""
