"""The values that the deploys would declare for the droplet in memory, and the images that exist."""

from __future__ import annotations

from typing import Any

REPOSITORY = "registry.lab.test/bot"
ENVIRONMENT = {
    "ENVIRONMENT": "lab",
    "PUBLIC_URL": "https://bot.lab.test",
    "DATABASE_URL": "postgresql://owner_00000001:p%20w%24d@db/app",
    "TELEGRAM_BOT_TOKEN": "12345:AAAAAAAAAA",
    "TELEGRAM_WEBHOOK_SECRET": "webhook-secret-1",
    "TOKEN": "12345:s3cr3t $# '\" ü",
}
PUBLIC = {"lab", "https://bot.lab.test"}
DATABASE = "app"
CONFIG: dict[str, Any] = {
    "version": 1,
    "app": "bot",
    "environment": "lab",
    "operator": "deploy",
    "repository": REPOSITORY,
    "colours": {"blue": "172.31.0.11", "green": "172.31.0.12"},
    "healthy_timeout": 20,
    "migrate_timeout": 10,
    "stop_grace": 5,
    "worker_grace": 7,
    "watch": 3,
    "connections": 12,
    "ready_path": "/ready",
    "version_path": "/health",
    "webhook_path": "/webhook",
    "certificate": None,
    "data": {"database": DATABASE, "owner": "owner", "major": 17, "backup_memory_mib": 128, "root": "/data"},
    "migrate": True,
    "worker": True,
    "isolated": False,
}
KNOWN = {"1.0.0": ["0001"], "1.1.0": ["0001"], "1.2.0": ["0001", "0002"], "1.3.0": ["0001", "0002", "0003"]}
"""The revisions that each image knows. 0003 is a contract."""
