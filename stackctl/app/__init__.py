"""The app on the droplet: its state, environment, containers, schema and webhook."""
