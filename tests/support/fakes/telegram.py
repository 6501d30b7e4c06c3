"""Telegram's Bot API in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Telegram:
    """A fake Bot API that raises AssertionError for an unknown method."""

    webhook: dict[str, Any] = field(default_factory=dict)
    """The webhook that was set. `info` has further fields for getWebhookInfo to report."""
    takes_webhook_back: set[str] = field(default_factory=set)
    """The versions whose containers call deleteWebhook when they stop."""

    def request(self, method: str, body: bytes, more: Mapping[str, Any]) -> tuple[int, bytes]:
        """Return the status and body of an answer. `more` has further fields for getWebhookInfo to report."""
        match method:
            case "setWebhook":
                self.webhook |= json.loads(body)
                return 200, b'{"ok": true, "result": true}'
            case "getWebhookInfo":
                info = {"url": self.webhook.get("url", ""), **self.webhook.get("info", {}), **more}
                return 200, json.dumps({"ok": True, "result": info}).encode()
        raise AssertionError(f"Telegram has no method {method}")

    def ended(self, version: str | None) -> None:
        """Tell the fake API that a container of this version stops."""
        if version in self.takes_webhook_back:
            self.webhook["url"] = ""
