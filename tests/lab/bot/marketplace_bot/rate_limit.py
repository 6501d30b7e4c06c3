"""Limits the messages of a chat per minute. Redis counts the messages, so that all running bots share one count."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiogram import BaseMiddleware
from aiogram.types import Message, TelegramObject
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

MESSAGES = 30
SECONDS = 60


class RateLimit(BaseMiddleware):
    """Middleware that answers in place of the handler if a chat sends too many messages.

    If Redis is unreachable, the middleware limits no chat.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> Any:
        """Count the message (see aiogram's BaseMiddleware)."""
        if isinstance(event, Message) and await self._count(event.chat.id) > MESSAGES:
            return event.answer(f"That was a lot at once. Please try again in {SECONDS} seconds.")
        return await handler(event, data)

    async def _count(self, chat: int) -> int:
        key = f"messages:{chat}"
        both = self._redis.pipeline(transaction=True)
        both.incr(key)
        both.expire(key, SECONDS, nx=True)
        try:
            count, _ = await both.execute()
        except (RedisError, OSError) as error:
            log.warning("redis is away, so no message is held back", error=type(error).__name__)
            return 0
        return int(count)
