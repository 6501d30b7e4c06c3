"""Assembles the web server and runs it."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator

import structlog
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiohttp import web
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from marketplace_bot import db, monitoring
from marketplace_bot.offers import offers_router
from marketplace_bot.probes import Probes
from marketplace_bot.rate_limit import RateLimit
from marketplace_bot.settings import Settings
from marketplace_bot.webhook import Webhook

log = structlog.get_logger(__name__)

FINISH_WITHIN = 20  # seconds in which requests must end after SIGTERM; Docker kills the container after 30
REPLY_WITHIN = 5  # seconds within which Telegram must accept a reply
FORGET_EVERY = 3600  # seconds


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    After the signal, accept no new request, and finish the requests that have begun.
    """
    log.info("starting", version=settings.version, environment=settings.environment, port=monitoring.PORT)
    app = create_app(settings)
    # An update of a kind that aiogram doesn't know is logged as "ignored". A release's probe is such an update.
    warnings.filterwarnings("ignore", message="Detected unknown update type")
    # aiogram's many types stay until the end, so neither garbage collection nor the exit should spend time on them.
    gc.freeze()
    gc.enable()
    web.run_app(
        app,
        host=monitoring.HOST,
        port=monitoring.PORT,
        shutdown_timeout=FINISH_WITHIN,
        access_log=None,
        print=None,
    )
    log.info("stopped")


def create_app(settings: Settings) -> web.Application:
    """Return the application without connecting to anything.

    The application starts even if dependencies are missing, and reports them.
    """
    engine = db.connect(settings.database_url)
    sessions = async_sessionmaker(engine)
    redis = Redis.from_url(settings.redis_url, socket_timeout=0.5, retry=Retry(NoBackoff(), 1))
    telegram = AiohttpSession(api=TelegramAPIServer.from_base(settings.telegram_api_url), timeout=REPLY_WITHIN)
    bot = Bot(settings.telegram_token, session=telegram)

    async def connections(_: web.Application) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(_forget_what_is_old(sessions))
        yield
        forgetting.cancel()
        await bot.session.close()
        await redis.aclose()
        await engine.dispose()

    webhook = Webhook(bot, _dispatcher(redis), sessions, settings.webhook_secrets)
    probes = Probes(engine, redis, settings.version)
    app = web.Application()
    app.cleanup_ctx.append(connections)
    app.add_routes(
        [
            web.post("/webhook/telegram", webhook.receive),
            *monitoring.routes(settings.version),
            web.get("/ready", probes.ready),
            web.get("/health", probes.health),
        ]
    )
    return app


def _dispatcher(redis: Redis) -> Dispatcher:
    router = offers_router()
    router.message.middleware(RateLimit(redis))
    dispatcher = Dispatcher(disable_fsm=True)
    dispatcher.include_router(router)
    return dispatcher


async def _forget_what_is_old(sessions: async_sessionmaker[AsyncSession]) -> None:
    while True:
        try:
            async with sessions.begin() as session:
                await db.forget_what_is_old(session)
        except Exception as error:
            log.warning("what is old is kept for now", error=f"{type(error).__name__}: {error}")
        await asyncio.sleep(FORGET_EVERY)
