"""Writes `.env.lab` with the lab's secrets, which are random and contain every character that is difficult to quote."""

import re
import secrets
import string
from collections.abc import Callable
from pathlib import Path

from dotenv import dotenv_values

# If any program between this file and a container quotes wrongly, one of these characters breaks.
AWKWARD = """ a b $HOME ${X} #c 'd' "e" %41 \\n\\ é☃"""
HEADER = "# The lab's secrets, made by `make lab-up`; `make lab-down` removes them.\n"
LETTERS = string.ascii_letters + string.digits

RECIPES: dict[str, Callable[[], str]] = {
    "DATABASE_PASSWORD": lambda: secrets.token_urlsafe(12) + AWKWARD,
    "REDIS_PASSWORD": lambda: secrets.token_urlsafe(12) + AWKWARD,
    "TELEGRAM_BOT_TOKEN": lambda: f"{secrets.randbelow(9 * 10**8) + 10**8}:{_letters(35)}",
    "TELEGRAM_WEBHOOK_SECRET": lambda: secrets.token_urlsafe(32),
    "REGISTRY_PASSWORD": lambda: secrets.token_urlsafe(12) + AWKWARD,
    "OFFSITE_KEY_ID": lambda: _letters(20).upper(),
    "OFFSITE_KEY_SECRET": lambda: _letters(40),
    "OFFSITE_PASSWORD": lambda: secrets.token_urlsafe(12) + AWKWARD,
    "OFFSITE_OPERATOR_KEY_ID": lambda: _letters(20).upper(),
    "OFFSITE_OPERATOR_KEY_SECRET": lambda: _letters(40),
    "OFFSITE_OPERATOR_PASSWORD": lambda: secrets.token_urlsafe(12) + AWKWARD,
    "FINGERPRINT_KEY": lambda: secrets.token_hex(32),
    "STRIPE_API_KEY": lambda: f"sk_test_{_letters(24)}",
}


def make(file: Path) -> dict[str, str]:
    """Write the missing values to the file, readable only by its owner. Return all values."""
    present = read(file) if file.exists() else {}
    values = present | {name: recipe() for name, recipe in RECIPES.items() if name not in present}
    if values != present:
        file.touch(mode=0o600)
        file.write_text(HEADER + "".join(line(name, value) for name, value in values.items()))
    return values


def read(file: Path) -> dict[str, str]:
    """Return the values as the site reads them."""
    return {name: value for name, value in dotenv_values(file, interpolate=False).items() if value}


def line(name: str, value: str) -> str:
    """Return a line in dotenv's single-quoted form, which escapes only the quote and the backslash."""
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    return f"{name}='{escaped}'\n"


def _letters(count: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(count))
