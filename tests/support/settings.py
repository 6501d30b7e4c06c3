"""The values of group_data as a deploy gets them from pyinfra, and settings made from these, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploys.config.environments import group_data
from deploys.config.keys import CaCertificate
from deploys.config.settings import Settings, check_values
from deploys.secrets.rules import OFFSITE_RULES, OPERATOR_RULES, Credentials
from stackctl.core.paths import Paths

ROOT = Path(__file__).parents[2]

OWN = {
    "domain": "bot.marketplace.dev",
    "acme_email": "operator@marketplace.dev",
    "app_repository": "ghcr.io/marketplace/bot",
    "registry_user": "marketplace",
    "offsite_repository": "s3:https://ams3.digitaloceanspaces.com/marketplace/bot",
}
"""Values that replace the examples in group_data/prod.py and staging.py."""


def data_of(environment: str) -> dict[str, Any]:
    """Return the environment's values without pyinfra's names."""
    values = {name: value for name, value in group_data(environment).items() if not name.startswith("ssh_")}
    return values | (OWN if environment != "lab" else {})


def settings_of(environment: str, changes: dict[str, Any] | None = None, **secrets: str) -> Settings:
    """Return the environment's settings with `changes`, and with made-up secrets instead of an env file."""
    credentials = {
        "database_password": "d",
        "redis_password": "r",
        "registry_password": "p",
        "fingerprint_key": "f",
        **secrets,
    }
    values = check_values(data_of(environment) | (changes or {}))
    certificates = (CaCertificate("ca.crt", b"pem"),)
    app = dict.fromkeys(values.secrets_of_the_app, "s")
    offsite = dict.fromkeys([*OFFSITE_RULES, *OPERATOR_RULES] if values.offsite_repository else [], "o")
    return Settings(values, Credentials(app=app, offsite=offsite, **credentials), b"", certificates, Paths(values.app))
