"""Manages the host: changes on trial, the certificate, upkeep, and things that nobody declared."""
