"""Telegram's Bot API, in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Telegram:
    """Refuses a method that it does not know."""

    webhook: dict[str, Any] = field(default_factory=dict)
    """What Telegram was told, and says; `info` is what else getWebhookInfo has."""
    takes_webhook_back: set[str] = field(default_factory=set)
    """The versions whose containers call deleteWebhook as they end."""

    def request(self, method: str, body: bytes, more: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body of the answer; `more` is what getWebhookInfo has besides."""
        match method:
            case "setWebhook":
                self.webhook |= json.loads(body)
                return 200, b'{"ok": true, "result": true}'
            case "getWebhookInfo":
                info = {"url": self.webhook.get("url", ""), **self.webhook.get("info", {}), **more}
                return 200, json.dumps({"ok": True, "result": info}).encode()
        raise AssertionError(f"Telegram has no method {method}")

    def ended(self, version: str | None) -> None:
        """A container of this version was told to stop."""
        if version in self.takes_webhook_back:
            self.webhook["url"] = ""
