"""The bot parses people's messages."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from aiogram.filters import CommandObject
from aiogram.types import Chat, Message
from hypothesis import given
from hypothesis import strategies as st
from marketplace_bot.db import Job, Offer
from marketplace_bot.offers import describe, parse_offer, reserve
from sqlalchemy.ext.asyncio import AsyncSession


@pytest.mark.parametrize(
    ("words", "offer"),
    [
        ("3.50 Bread box", (350, "Bread box")),
        ("3,05 Brot", (305, "Brot")),
        ("0 Für alle €", (0, "Für alle €")),
        ("999999.99 x", (99_999_999, "x")),
        ("1000000 x", None),
        ("3.5 x", None),
        ("-1 x", None),
        ("3.50", None),
        ("Bread 3.50", None),
        ("1 two\nlines", None),
        ("1 no\0text", None),
        ("1 " + "x" * 201, None),
        ("", None),
    ],
)
def test_parse_offer(words: str, offer: tuple[int, str] | None) -> None:
    assert parse_offer(words) == offer


@given(st.text() | st.from_regex(r"\d{1,8}[.,]?\d{0,3} .*"))
def test_a_parsed_offer_fits_its_columns(words: str) -> None:
    """PostgreSQL must accept each parsed value.

    Otherwise Telegram would repeat the update, and the update would fail each time.
    """
    if offer := parse_offer(words):
        price_cents, title = offer
        assert 0 <= price_cents < 2**31
        assert "\0" not in title


def test_describe() -> None:
    assert describe(Offer(id=7, title="Bread box", price_cents=305)) == "7: Bread box, 3.05"


@pytest.mark.parametrize(("seller", "told"), [(77, [77]), (0, [])], ids=["a chat's", "the bot's own"])
def test_a_reservation_is_a_job_to_tell_the_seller(seller: int, told: list[int]) -> None:
    made: list[Job] = []

    async def won(statement: object) -> Offer:
        return Offer(id=7, title="Bread box", price_cents=305, seller=seller)

    session = cast("AsyncSession", SimpleNamespace(scalar=won, add=made.append))
    message = Message.model_validate({"message_id": 1, "date": 0, "chat": Chat(id=42, type="private")})
    asyncio.run(reserve(message, CommandObject(args="7"), session))
    assert [job.payload["chat"] for job in made] == told
