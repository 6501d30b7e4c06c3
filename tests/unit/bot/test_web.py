"""The bot answers over HTTP, with stand-ins for its database, Redis and Telegram.

The tests send nothing over the network.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiogram import Bot, Dispatcher
from aiogram.client.session.base import BaseSession
from aiogram.filters import CommandStart
from aiogram.methods import TelegramMethod
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from marketplace_bot.offers import explain
from marketplace_bot.rate_limit import MESSAGES, RateLimit
from marketplace_bot.settings import read_settings
from marketplace_bot.web import create_app
from marketplace_bot.webhook import Webhook
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

PATH = "/webhook/telegram"
RIGHT, OLD = "right", "old"
HEADER = "X-Telegram-Bot-Api-Secret-Token"
START = {
    "update_id": 7,
    "message": {
        "message_id": 1,
        "date": 0,
        "chat": {"id": 42, "type": "private"},
        "text": "/start",
    },
}


class Database:
    """A stand-in for the database, with one session that records how its transactions end."""

    def __init__(self, *, seen: bool = False, commit_fails: bool = False) -> None:
        self.seen = seen
        self.commit_fails = commit_fails
        self.ended: list[str] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["Database"]:
        yield self
        if self.commit_fails:
            raise SQLAlchemyError("disk full")
        self.ended.append("commit")

    async def scalar(self, statement: object) -> int | None:
        return None if self.seen else 7

    async def rollback(self) -> None:
        self.ended.append("rollback")


class Telegram(BaseSession):
    """A stand-in for Telegram that accepts or refuses the bot's messages."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.broken = broken
        self.sent: list[TelegramMethod[Any]] = []

    async def make_request(self, bot: Bot, method: TelegramMethod[Any], timeout: int | None = None) -> Any:
        if self.broken:
            raise OSError("no route to Telegram")
        self.sent.append(method)

    async def stream_content(self, *args: object, **kwargs: object) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError
        yield b""

    async def close(self) -> None:
        pass


class Counter:
    """A stand-in for Redis's counter, which returns the same number each time or raises an error."""

    def __init__(self, count: int | Exception) -> None:
        self.count = count

    def pipeline(self, **_: object) -> "Counter":
        return self

    def incr(self, key: str) -> None: ...

    def expire(self, key: str, seconds: int, **_: object) -> None: ...

    async def execute(self) -> list[int]:
        if isinstance(self.count, Exception):
            raise self.count
        return [self.count, 1]


def make_webhook(database: Database, telegram: Telegram, count: int | Exception) -> Webhook:
    """Return a webhook whose only command is /start."""
    dispatcher = Dispatcher(disable_fsm=True)
    dispatcher.message.middleware(RateLimit(cast("Redis", Counter(count))))
    dispatcher.message.register(explain, CommandStart())
    sessions = cast("async_sessionmaker[AsyncSession]", database)
    return Webhook(Bot("1:token", session=telegram), dispatcher, sessions, (RIGHT, OLD))


def answer(
    body: object,
    *,
    secret: str | None = RIGHT,
    database: Database | None = None,
    telegram: Telegram | None = None,
    count: int | Exception = 1,
) -> int:
    """Post `body` to a webhook made of the stand-ins, and return the HTTP status."""
    webhook = make_webhook(database or Database(), telegram or Telegram(), count)

    async def post() -> int:
        app = web.Application()
        app.add_routes([web.post(PATH, webhook.receive)])
        async with TestClient(TestServer(app)) as client:
            response = await client.post(PATH, json=body, headers={} if secret is None else {HEADER: secret})
            return response.status

    return asyncio.run(post())


@pytest.mark.parametrize("secret", [None, "", "wrong", "righ", "rightö", "right,old"])
def test_without_the_secret_nothing_happens(secret: str | None) -> None:
    database = Database()
    assert answer(START, secret=secret, database=database) == 401
    assert database.ended == []


def test_a_secret_of_broken_text_is_a_wrong_one() -> None:
    """aiohttp turns bytes that are not UTF-8 into surrogates.

    The bot treats a header with surrogates as a wrong secret.
    """
    request = cast("web.Request", SimpleNamespace(headers={HEADER: "\udcff"}))
    assert asyncio.run(make_webhook(Database(), Telegram(), 1).receive(request)).status == 401


@pytest.mark.parametrize("secret", [RIGHT, OLD])
def test_each_secret_of_the_list_is_accepted(secret: str) -> None:
    assert answer(START, secret=secret) == 200


@pytest.mark.parametrize("body", [None, [], {}, {"update_id": "x"}, {"update_id": 7, "message": {}}])
def test_a_body_that_is_no_update_is_refused(body: object) -> None:
    database = Database()
    assert answer(body, database=database) == 400
    assert database.ended == []


def test_an_update_is_committed_and_then_answered() -> None:
    database, telegram = Database(), Telegram()
    assert answer(START, database=database, telegram=telegram) == 200
    assert database.ended == ["commit"]
    assert [getattr(reply, "chat_id", None) for reply in telegram.sent] == [42]


def test_a_repeated_update_is_not_answered_again() -> None:
    telegram = Telegram()
    assert answer(START, database=Database(seen=True), telegram=telegram) == 200
    assert telegram.sent == []


def test_a_failed_commit_is_an_error_for_telegram_and_silent_for_the_chat() -> None:
    telegram = Telegram()
    assert answer(START, database=Database(commit_fails=True), telegram=telegram) == 500
    assert telegram.sent == []


def test_a_lost_reply_rolls_nothing_back() -> None:
    database = Database()
    assert answer(START, database=database, telegram=Telegram(broken=True)) == 200
    assert database.ended == ["commit"]


@pytest.mark.filterwarnings("ignore:Detected unknown update type")
def test_an_update_without_a_handler_leaves_no_trace() -> None:
    database = Database()
    assert answer({"update_id": 0}, database=database) == 200
    assert database.ended[0] == "rollback"


@pytest.mark.parametrize(
    ("count", "held_back"),
    [(MESSAGES, False), (MESSAGES + 1, True), (RedisError("gone"), False)],
    ids=["last one", "one too many", "no redis"],
)
def test_a_chat_that_writes_too_often_gets_a_notice(count: int | Exception, held_back: bool) -> None:  # noqa: FBT001
    telegram = Telegram()
    assert answer(START, telegram=telegram, count=count) == 200
    assert ["a lot at once" in str(reply) for reply in telegram.sent] == [held_back]


def test_a_bot_without_its_dependencies_lives_and_is_not_ready() -> None:
    app = create_app(
        read_settings(
            {
                "ENVIRONMENT": "lab",
                "APP_VERSION": "1.2.3",
                "DATABASE_URL": "postgresql://bot:pw@127.0.0.1:1/market",
                "REDIS_URL": "redis://:pw@127.0.0.1:1/0",
                "TELEGRAM_BOT_TOKEN": "1:token",
                "TELEGRAM_WEBHOOK_SECRET": RIGHT,
            }
        )
    )

    async def get() -> dict[str, tuple[int, Any]]:
        async with TestClient(TestServer(app)) as client:
            answers = {path: await client.get(path) for path in ("/live", "/ready", "/health")}
            metrics = await (await client.get("/metrics")).text()
            assert 'bot_build_info{version="1.2.3"} 1.0' in metrics
            return {path: (response.status, await response.json()) for path, response in answers.items()}

    found = asyncio.run(get())
    assert found["/live"] == (200, {"status": "alive"})
    assert found["/ready"] == (
        503,
        {"ready": False, "reasons": ["postgres does not answer", "redis does not answer"]},
    )
    status, health = found["/health"]
    assert (status, health["status"], health["version"]) == (503, "degraded", "1.2.3")
    assert health["dependencies"] == {"postgres": "down", "redis": "down"}
    assert health["uptime"] >= 0
