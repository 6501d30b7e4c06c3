"""Telegram's Bot API, as far as a release needs it: where updates go, and how their delivery does.

https://core.telegram.org/bots/api#setwebhook. The token is part of every URL, so no URL is ever told.
"""

import hashlib
import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import environment
from .compose import SECRET
from .errors import FailedError, StackError
from .machine import Machine
from .paths import Paths
from .state import State, Webhook

DEFAULT_API = "https://api.telegram.org"


@dataclass(frozen=True)
class Telegram:
    """One bot's account, by the environment of its release."""

    machine: Machine
    values: Mapping[str, str]

    def info(self) -> dict[str, Any]:
        """getWebhookInfo's result. Raises FailedError when Telegram doesn't say."""
        return dict(self._call("getWebhookInfo", {}))

    def url(self) -> str | None:
        """Where updates go; None when Telegram doesn't say."""
        try:
            return str(self.info().get("url"))
        except FailedError:
            return None

    def set_webhook(self, url: str) -> None:
        """Have updates sent there, with our secret. Those that wait are kept."""
        self._call("setWebhook", {"url": url, "secret_token": self.values[SECRET]})

    def _call(self, method: str, parameters: Mapping[str, object]) -> Any:
        api = self.values.get("TELEGRAM_API_URL", DEFAULT_API)
        url, sent = f"{api}/bot{self.values['TELEGRAM_BOT_TOKEN']}/{method}", json.dumps(parameters).encode()
        try:
            status, body = self.machine.request("POST", url, sent, {"Content-Type": "application/json"})
            answer = json.loads(body)
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(f"Telegram's {method}: {error or type(error).__name__}") from None
        except ValueError:
            raise FailedError(f"Telegram's {method} answers {status}, and no JSON") from None
        if not answer.get("ok"):
            raise FailedError(f"Telegram's {method} answers {status}: {answer.get('description')}")
        return answer["result"]


def webhook(values: Mapping[str, str], path: str) -> Webhook:
    """What Telegram is to be told."""
    return Webhook(values["PUBLIC_URL"] + path, fingerprint(values))


def fingerprint(values: Mapping[str, str]) -> str:
    """Of the secret, keyed by the token."""
    keyed = f"{values['TELEGRAM_BOT_TOKEN']}\n{values[SECRET]}"
    return hashlib.sha256(keyed.encode()).hexdigest()


def sent_secret(paths: Paths, state: State) -> str | None:
    """The secret that Telegram sends now, out of the environments that are kept; None where it isn't known."""
    if not state.webhook:
        return None
    for path in paths.secrets.glob("*.json"):
        with suppress(StackError, OSError, KeyError):
            values = environment.load(path)
            if fingerprint(values) == state.webhook.fingerprint:
                return values[SECRET]
    return None
