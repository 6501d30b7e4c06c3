"""The part of Telegram's Bot API that a release needs: the webhook, and the state of its deliveries.

https://core.telegram.org/bots/api#setwebhook. The token is part of every URL, so no URL is ever shown.
"""

import hashlib
import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stackctl.app import app_env
from stackctl.app.app_env import SECRET
from stackctl.app.state import State, Webhook
from stackctl.core.errors import FailedError, StackError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths
from stackctl.core.printable import printable

DEFAULT_API = "https://api.telegram.org"
SHOWN = 200


class RejectedError(FailedError):
    """Telegram does not know the token (401), or the URL is not in Telegram's API (404)."""


@dataclass(frozen=True)
class Info:
    """Telegram's description of the webhook: https://core.telegram.org/bots/api#webhookinfo."""

    url: str
    """Empty if no webhook is set."""
    pending: int
    error_at: int
    """When a delivery last failed, in seconds since the epoch by Telegram's clock. 0 if no delivery failed."""
    error: str

    @classmethod
    def read(cls, result: Any) -> "Info":
        """Convert the answer to getWebhookInfo. Raises FailedError if the answer does not have the expected form."""
        document = result if isinstance(result, dict) else {}
        url, error = document.get("url"), document.get("last_error_message", "")
        pending, error_at = document.get("pending_update_count", 0), document.get("last_error_date", 0)
        if not isinstance(url, str) or type(pending) is not int or type(error_at) is not int:
            raise FailedError("Telegram's answer to getWebhookInfo does not have the documented form")
        return cls(url, pending, error_at, shown(error))


@dataclass(frozen=True)
class Telegram:
    """The bot's account, with the token from the app environment."""

    machine: Machine
    values: Mapping[str, str]

    def info(self) -> Info:
        """Return the result of getWebhookInfo. Raises FailedError if Telegram does not answer."""
        return Info.read(self._call("getWebhookInfo", {}))

    def set_webhook(self, url: str) -> None:
        """Set the webhook, with the secret of the app environment. Telegram keeps the pending updates."""
        self._call("setWebhook", {"url": url, "secret_token": self.values[SECRET]})

    def _call(self, method: str, parameters: Mapping[str, object]) -> Any:
        api = self.values.get("TELEGRAM_API_URL", DEFAULT_API)
        url, sent = f"{api}/bot{self.values['TELEGRAM_BOT_TOKEN']}/{method}", json.dumps(parameters).encode()
        try:
            status, body = self.machine.request("POST", url, sent, {"Content-Type": "application/json"})
            answer = json.loads(body)
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(f"Telegram's {method} failed: {error or type(error).__name__}") from None
        except ValueError:
            raise FailedError(f"Telegram's {method} answers {status}, but the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise FailedError(f"Telegram's {method} answers {status}, but the answer does not have the documented form")
        if answer.get("ok") is not True:
            described = f"Telegram's {method} answers {status}: {shown(answer.get('description'))}"
            raise RejectedError(described) if status in {401, 404} else FailedError(described)
        return answer.get("result")


def shown(text: object) -> str:
    """Make text from the network short and printable."""
    return printable(str(text)[:SHOWN], "")


def webhook(values: Mapping[str, str], path: str) -> Webhook:
    """Return the webhook that Telegram should have."""
    return Webhook(values["PUBLIC_URL"] + path, fingerprint(values))


def fingerprint(values: Mapping[str, str]) -> str:
    """Return a hash of the webhook secret and the bot's token."""
    keyed = f"{values['TELEGRAM_BOT_TOKEN']}\n{values[SECRET]}"
    return hashlib.sha256(keyed.encode()).hexdigest()


def sent_secret(paths: Paths, state: State) -> str | None:
    """Return the secret that Telegram sends now, or None if no kept app environment has that secret."""
    if not state.webhook:
        return None
    for path in paths.secrets.glob("*.json"):
        with suppress(StackError, OSError, KeyError):
            values = app_env.load(path)
            if fingerprint(values) == state.webhook.fingerprint:
                return values[SECRET]
    return None
