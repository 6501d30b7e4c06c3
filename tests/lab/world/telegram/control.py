"""/lab/: the routes with which the lab creates updates and reads their outcome."""

from __future__ import annotations

import json

from aiohttp import web

from .delivery import Answer, Bot


class Control:
    """The handlers of /lab/."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/lab/updates", self.create),
            web.get("/lab/updates", self.counts),
            web.post("/lab/repeat", self.repeat),
            web.get("/lab/messages", self.messages),
            web.get("/lab/calls", self.calls),
            web.post("/lab/forget", self.forget),
        ]

    async def create(self, request: web.Request) -> web.Response:
        body = await json_object(request)
        count, text, chat_id = body.get("count", 1), body.get("text", "/start"), body.get("chat_id")
        if not (isinstance(count, int) and isinstance(text, str) and isinstance(chat_id, int | None)):
            raise web.HTTPBadRequest(text="count and chat_id are whole numbers, text is a string\n")
        return web.json_response({"update_ids": [self._bot.new_update(text, chat_id) for _ in range(count)]})

    async def counts(self, request: web.Request) -> web.Response:
        try:
            first, last = int(request.query.get("from", 0)), int(request.query.get("to", 2**63))
        except ValueError as error:
            raise web.HTTPBadRequest(text="from and to are update_ids\n") from error
        found = [update.counts() for update_id, update in self._bot.updates.items() if first <= update_id <= last]
        return web.json_response({"updates": found})

    async def repeat(self, request: web.Request) -> web.Response:
        update_id = (await json_object(request)).get("update_id")
        if not isinstance(update_id, int) or update_id not in self._bot.updates:
            raise web.HTTPNotFound(text="no such update_id; GET /lab/updates lists them\n")
        self._bot.enqueue(update_id)
        return web.json_response({"update_id": update_id})

    async def messages(self, _request: web.Request) -> web.Response:
        return web.json_response({"messages": self._bot.messages})

    async def calls(self, _request: web.Request) -> web.Response:
        return web.json_response({"calls": self._bot.calls})

    async def forget(self, _request: web.Request) -> web.Response:
        await self._bot.forget()
        return web.json_response({})


async def json_object(request: web.Request) -> Answer:
    try:
        body = json.loads(await request.text() or "{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object\n")
    return body
