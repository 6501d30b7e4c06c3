"""The commands of a chat. A handler changes rows in its session and returns the reply without sending it.

The webhook commits before it sends the reply, so a reply never announces a change that was rolled back.
"""

import re

from aiogram import F, Router
from aiogram.enums import ChatType
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.methods import SendMessage
from aiogram.types import Message
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from marketplace_bot.db import Job, Offer

HELP = """\
/offers shows what is still to be had
/reserve 7 reserves number 7
/offer 3.50 Bread box offers something yourself"""

# These patterns admit only values that fit into a column. With a longer value, the update would fail again each time
# that Telegram repeats it.
_NUMBER = re.compile(r"\d{1,18}")
_PRICE_AND_TITLE = re.compile(r"(?P<whole>\d{1,6})(?:[.,](?P<cents>\d{2}))? (?P<title>.{1,200})")


def offers_router() -> Router:
    """Return a new router with every command. A handler needs `session` in aiogram's context."""
    router = Router(name="offers")
    router.message.register(list_offers, Command("offers"))
    router.message.register(reserve, Command("reserve"))
    router.message.register(make_offer, Command("offer"))
    router.message.register(explain, CommandStart())
    router.message.register(explain, F.chat.type == ChatType.PRIVATE)
    return router


async def explain(message: Message) -> SendMessage:
    """Answer a message that the bot does not understand."""
    return message.answer(HELP)


async def list_offers(message: Message, session: AsyncSession) -> SendMessage:
    """Show the newest free offers."""
    free = await session.scalars(select(Offer).where(Offer.buyer.is_(None)).order_by(Offer.id.desc()).limit(20))
    return message.answer("\n".join(map(describe, free)) or "Everything is reserved. Come back later.")


async def reserve(message: Message, command: CommandObject, session: AsyncSession) -> SendMessage:
    """Reserve the offer for this chat if it is free. It is one statement, so only one of two
    simultaneous chats wins.
    """
    if not _NUMBER.fullmatch(command.args or ""):
        return message.answer("Which one? For example: /reserve 7")
    number = int(command.args or "")
    won = await session.scalar(
        update(Offer)
        .where(Offer.id == number, Offer.buyer.is_(None))
        .values(buyer=message.chat.id, reserved_at=func.now())
        .returning(Offer)
    )
    if won:
        if won.seller:  # Seller 0 is the bot itself.
            session.add(Job(kind="notify", payload={"chat": won.seller, "text": f"Reserved: {describe(won)}"}))
        return message.answer(f"Reserved for you: {describe(won)}")
    offer = await session.get(Offer, number)
    if offer is None:
        return message.answer(f"There is no offer {number}.")
    return message.answer("You have it already." if offer.buyer == message.chat.id else "Somebody was faster.")


async def make_offer(message: Message, command: CommandObject, session: AsyncSession) -> SendMessage:
    """Add an offer of this chat."""
    wanted = parse_offer(command.args or "")
    if wanted is None:
        return message.answer("What for how much? For example: /offer 3.50 Bread box")
    price_cents, title = wanted
    offer = Offer(title=title, price_cents=price_cents, seller=message.chat.id)
    session.add(offer)
    await session.flush()
    return message.answer(f"Offered: {describe(offer)}")


def parse_offer(words: str) -> tuple[int, str] | None:
    """Return the price in cents and the title from a text like "3.50 Bread box", or None for another text."""
    match = _PRICE_AND_TITLE.fullmatch(words)
    if match is None or not match["title"].isprintable():
        return None
    return int(match["whole"]) * 100 + int(match["cents"] or 0), match["title"]


def describe(offer: Offer) -> str:
    """Return an offer as one line for a person."""
    return f"{offer.id}: {offer.title}, {offer.price_cents // 100}.{offer.price_cents % 100:02}"
