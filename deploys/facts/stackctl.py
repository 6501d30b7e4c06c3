"""What stackctl says of the stack."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit

from pyinfra.api import FactBase, QuoteString, StringCommand

from deploys.internals import ctx_host, ctx_state


class Isolated(FactBase[bool]):
    """Whether the droplet was told to be a copy that nobody outside hears of."""

    default = bool

    def command(self, config: str) -> StringCommand:
        return StringCommand("cat", QuoteString(config), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> bool:
        text = "".join(output)
        return bool(json.loads(text).get("isolated", False)) if text else False


class WebhookHost(FactBase[str | None]):
    """The host name where Telegram was told to send updates; None when it was told none."""

    def command(self, state: str) -> StringCommand:
        return StringCommand("cat", QuoteString(state), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> str | None:
        try:
            return urlsplit(str(json.loads("".join(output))["webhook"]["url"])).hostname
        except (ValueError, LookupError, TypeError):
            return None  # stackctl status says what is wrong with it


class Status(FactBase[dict[str, Any] | None]):
    """`stackctl status --json`; None where stackctl isn't installed or configured yet."""

    def requires_command(self) -> str:
        return "stackctl"

    def command(self) -> str:
        return "stackctl status --json || true"  # 4, where a person is needed, is an answer too

    def process(self, output: Iterable[str]) -> dict[str, Any] | None:
        text = "".join(output)
        return dict(json.loads(text)) if text.startswith("{") else None


def status() -> dict[str, Any] | None:
    """What Status says of this host. A plan changes nothing, so it asks once; a converge asks again as it goes."""
    host = ctx_host.get()
    if ctx_state.get().is_executing:
        return cast("dict[str, Any] | None", host.get_fact(Status))
    return planned(host)


def planned(host: Any) -> dict[str, Any] | None:
    """What Status said when the plan was made."""
    if "stackctl_status" not in vars(host):
        vars(host)["stackctl_status"] = host.get_fact(Status)
    return cast("dict[str, Any] | None", vars(host)["stackctl_status"])
