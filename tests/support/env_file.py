"""A correct env file."""

from __future__ import annotations

from pathlib import Path

SECRET = "Zq8-a-secret-of-the-tests"


GOOD = {
    "DATABASE_PASSWORD": f"{SECRET}-1",
    "REDIS_PASSWORD": f"{SECRET}-2",
    "TELEGRAM_BOT_TOKEN": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"[:45],
    "TELEGRAM_WEBHOOK_SECRET": "0123456789abcdef",
    "REGISTRY_PASSWORD": f"{SECRET}-3",
    "FINGERPRINT_KEY": f"{SECRET}-of-enough-characters",
    "STRIPE_API_KEY": f"{SECRET}-4",
    "OFFSITE_KEY_ID": "DROPLETSKEY",
    "OFFSITE_KEY_SECRET": f"{SECRET}-5",
    "OFFSITE_PASSWORD": f"{SECRET}-6",
    "OFFSITE_OPERATOR_KEY_ID": "OPERATORSKEY",
    "OFFSITE_OPERATOR_KEY_SECRET": f"{SECRET}-7",
    "OFFSITE_OPERATOR_PASSWORD": f"{SECRET}-8",
}


def env_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / ".env.test"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    return path
