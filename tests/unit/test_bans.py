"""fail2ban's configuration: whom it spares, and where there is no nginx."""

from __future__ import annotations

import re

from deploys.components.bans import TELEGRAM, configuration
from tests.unit.places import settings_of


def jail(*, edge: bool = True, **changes: list[str]) -> str:
    return configuration(settings_of("prod", {**changes}), edge=edge)["jail.local"].decode()


def spared(text: str) -> list[str]:
    found = re.search(r"^ignoreip = (.*)$", text, re.MULTILINE)
    assert found
    return found[1].split()


def test_telegram_is_spared_whatever_the_webhook_allows() -> None:
    assert set(TELEGRAM) <= set(spared(jail(webhook_allowed_from=[])))


def test_whom_the_webhook_is_for_and_the_operators_are_spared() -> None:
    never = spared(jail(webhook_allowed_from=["192.0.2.0/28"], never_banned=["2001:db8::7/128"]))
    assert never == ["127.0.0.0/8", "::1", *TELEGRAM, "192.0.2.0/28", "2001:db8::7/128"]


def test_without_nginx_its_log_is_not_watched() -> None:
    """fail2ban doesn't start when a log is missing, and SSH would be watched no more."""
    assert "[nginx-refusals]" in jail()
    assert "nginx" not in jail(edge=False)
