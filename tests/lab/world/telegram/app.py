"""The program's routes: the Bot API, the lab's controls, and 404 for everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from .control import Control
from .delivery import Bot, Trust
from .methods import api, not_found


def make_app(token_file: Path, trust_file: Path) -> web.Application:
    bot = Bot(Trust(trust_file))

    async def close(_app: web.Application) -> AsyncIterator[None]:
        yield
        await bot.close()

    app = web.Application()
    app.cleanup_ctx.append(close)
    app.add_routes(Control(bot).routes())
    for verb in ("GET", "POST"):
        app.router.add_route(verb, "/bot{token}/{method}", api(bot, token_file))
    app.router.add_route("*", "/{path:.*}", not_found)
    return app
