"""Masks secrets in logs and messages."""

import json
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

SHORTEST_SECRET = 6


def spellings(values: Iterable[str]) -> list[str]:
    """Return the secret values, and their parts, in every spelling that logs and URLs use, longest first."""
    every = {spelt for value in values for spelt in _spellings(value) if len(spelt) >= SHORTEST_SECRET}
    return sorted(every, key=len, reverse=True)


def mask(text: str, secrets: Sequence[str]) -> str:
    """Replace the secrets in a text with asterisks."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _spellings(value: str) -> set[str]:
    plain = {value, *value.splitlines()}
    try:
        password = urlsplit(value).password
    except ValueError:
        password = None
    if password:
        plain |= {password, unquote(password)}
    escaped = {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in plain for ascii_only in (True, False)}
    return plain | escaped | {repr(text)[1:-1] for text in plain}
