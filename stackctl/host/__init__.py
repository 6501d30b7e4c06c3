"""The host itself: changes on trial, the certificate, upkeep, and what is not declared."""
