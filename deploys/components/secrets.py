"""Records the age of each secret in the checkout's ledger, once the secrets are in use."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys.config.settings import Settings
from deploys.operations.ledger import record_secret_ages
from deploys.secrets import ledger


@deploy("secrets")
def secrets(settings: Settings) -> None:
    record_secret_ages(
        name="Record the day on which each secret came into use",
        path=settings.values.secrets_ledger,
        current=ledger.fingerprints(settings.credentials),
        _run_once=True,
    )
