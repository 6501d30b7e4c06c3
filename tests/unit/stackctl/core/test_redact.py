"""A redacted text contains no spelling of a secret."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.core import redact


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=redact.SHORTEST_SECRET, max_size=30))
def test_a_value_is_masked_in_every_spelling(secret: str) -> None:
    for spelling in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    ):
        assert redact.mask(f"<{spelling}>", redact.spellings([secret])) == "<***>"


@pytest.mark.parametrize("said", ["p%40ss w", "p@ss w", "-----KEY-----", "postgresql://bot:p%40ss w@db/x"])
def test_parts_of_values_are_masked(said: str) -> None:
    secrets = redact.spellings(["postgresql://bot:p%40ss w@db/x", "-----KEY-----\nabcdefgh\n"])
    assert redact.mask(f"error: {said}!", secrets) == "error: ***!"
