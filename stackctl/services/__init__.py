"""Clients of Docker, PostgreSQL, Redis and S3."""
