"""Clients for Docker, PostgreSQL, Redis, restic and S3."""
