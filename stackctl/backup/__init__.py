"""Backups: made, verified, listed, kept for a time, and copied off the droplet."""
