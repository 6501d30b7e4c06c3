"""Facts about the stack, from stackctl and its files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import urlsplit

from pyinfra.api import FactBase, QuoteString, StringCommand

from deploys.internals import ctx_host, ctx_state
from stackctl.core import instance


class Isolated(FactBase[bool]):
    """Whether stackctl.json says that the droplet is isolated."""

    default = bool

    def command(self, config: str) -> StringCommand:
        return StringCommand("cat", QuoteString(config), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> bool:
        text = "".join(output)
        return bool(json.loads(text).get("isolated", False)) if text else False


class RecordedInstanceId(FactBase[str | None]):
    """The instance ID in stackctl.json, of the droplet that was converged. None if no ID is recorded."""

    def command(self, config: str) -> StringCommand:
        return StringCommand("cat", QuoteString(config), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> str | None:
        text = "".join(output)
        return instance.parse(str(json.loads(text).get("instance_id") or "")) if text else None


class WebhookHost(FactBase[str | None]):
    """The host name of the webhook in state.json. None if no webhook is recorded."""

    def command(self, state: str) -> StringCommand:
        return StringCommand("cat", QuoteString(state), "2>/dev/null || true")

    def process(self, output: Iterable[str]) -> str | None:
        try:
            return urlsplit(str(json.loads("".join(output))["webhook"]["url"])).hostname
        except (ValueError, LookupError, TypeError):
            return None  # return False, because `stackctl status` reports a broken file


class Status(FactBase[dict[str, Any] | None]):
    """The output of `stackctl status --json`. None if stackctl is not installed or configured yet."""

    def requires_command(self) -> str:
        return "stackctl"

    def command(self) -> str:
        # with exit code 4 (a person is needed), `stackctl status` also prints the report
        return "stackctl status --json || true"

    def process(self, output: Iterable[str]) -> dict[str, Any] | None:
        text = "".join(output)
        return dict(json.loads(text)) if text.startswith("{") else None


def status() -> dict[str, Any] | None:
    """Return the stackctl status of this host.

    During a plan, read the status only once, because a plan changes nothing.
    """
    host = ctx_host.get()
    if ctx_state.get().is_executing:
        return cast("dict[str, Any] | None", host.get_fact(Status))
    return planned(host)


def planned(host: Any) -> dict[str, Any] | None:
    """Return the stackctl status that was read when the plan was made."""
    if "stackctl_status" not in vars(host):
        vars(host)["stackctl_status"] = host.get_fact(Status)
    return cast("dict[str, Any] | None", vars(host)["stackctl_status"])
