"""POST /webhook/telegram: each update takes effect once, however often Telegram sends it."""

from hmac import compare_digest
from typing import Any

import structlog
from aiogram import Bot, Dispatcher
from aiogram.dispatcher.event.bases import UNHANDLED
from aiogram.methods import TelegramMethod
from aiogram.types import Update
from aiohttp import web
from prometheus_client import Counter, Histogram
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from marketplace_bot import logs
from marketplace_bot.db import remember

log = structlog.get_logger(__name__)

UPDATES = Counter("bot_updates", "Updates received, by what became of them", ["outcome"])
UPDATE_SECONDS = Histogram("bot_update_seconds", "From an update's arrival to our answer, the reply included")
REPLIES_LOST = Counter("bot_replies_lost", "Replies that Telegram did not take")


class Webhook:
    """A handler of updates.

    The handler answers 2xx once an update's effects are committed, or an error if Telegram must repeat the update.
    """

    def __init__(
        self, bot: Bot, dispatcher: Dispatcher, sessions: async_sessionmaker[AsyncSession], secrets: tuple[str, ...]
    ) -> None:
        self._bot = bot
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._secrets = [secret.encode() for secret in secrets]

    async def receive(self, request: web.Request) -> web.Response:
        """Answer 200, 400 (not an update), 401 (not from Telegram) or 500 (nothing changed, Telegram must send it
        again).
        """
        if not self._is_telegram(request):
            return web.Response(status=401)
        try:
            update = Update.model_validate_json(await request.read(), context={"bot": self._bot})
        except ValidationError as error:
            log.warning("this is no update", problems=error.error_count())
            return web.Response(status=400)
        with UPDATE_SECONDS.time():
            return await self._answer(update)

    def _is_telegram(self, request: web.Request) -> bool:
        given = request.headers.get("X-Telegram-Bot-Api-Secret-Token", "").encode(errors="surrogateescape")
        # The list comprehension compares every secret. A generator would stop at the first match, so the duration would
        # show which secret matched.
        return any([compare_digest(given, secret) for secret in self._secrets])  # noqa: C419

    async def _answer(self, update: Update) -> web.Response:
        try:
            outcome, reply = await self._take(update)
        except Exception as error:
            log.error("update failed, Telegram will send it again", update_id=update.update_id, **logs.cause(error))
            UPDATES.labels("failed").inc()
            return web.Response(status=500)
        if reply is not None:
            await self._send(reply, update.update_id)
        log.info("update", update_id=update.update_id, outcome=outcome)
        UPDATES.labels(outcome).inc()
        return web.Response()

    async def _take(self, update: Update) -> tuple[str, TelegramMethod[Any] | None]:
        """Run the handlers in the transaction that also records the update as seen."""
        async with self._sessions.begin() as session:
            if not await remember(session, update.update_id):
                return "repeated", None
            reply = await self._dispatcher.feed_update(self._bot, update, session=session)
            if reply is UNHANDLED:
                # An update without an effect is not recorded, so that a release can probe with an empty update.
                await session.rollback()
                return "ignored", None
        return "handled", reply

    async def _send(self, reply: TelegramMethod[Any], update_id: int) -> None:
        """Send the reply after the commit. A reply that is lost must not make Telegram repeat the update."""
        try:
            await self._bot(reply)
        except Exception as error:
            log.warning("reply lost", update_id=update_id, error=f"{type(error).__name__}: {error}")
            REPLIES_LOST.inc()
