"""A stand-in for the Telegram Bot API: one bot, its webhook, and the updates it is owed.

    python3 telegram.py --listen 0.0.0.0:8081 --token-file /etc/telegram/tokens --trust /etc/telegram/acme-root.pem

/bot<token>/METHOD answers as Telegram does (GET, form or JSON). Updates are posted to the webhook as Telegram posts
them: HTTPS with a verified chain, IPv4 only, keep-alive, one after another within a chat and in parallel between chats;
any 2xx is success, everything else is tried again. What the lab wants to cause and to know is under /lab/:

    POST /lab/updates {"count": 1, "text": "/start", "chat_id": 7}   new messages, a chat each when chat_id is left out
                                          -> {"update_ids": [...]}
    POST /lab/repeat  {"update_id": 5}    the same update once more: Telegram promises at least once, not exactly once
    GET  /lab/updates?from=1&to=9         -> {"updates": [{"update_id", "attempts", "deliveries", "last_status"}]}
    GET  /lab/messages                    -> {"messages": [...]}, what the bot sent
    GET  /lab/calls                       -> {"calls": [{"method", "from"}]}, what was asked of this API, and whence
    POST /lab/forget                      drops updates, counts, messages and calls; the webhook stays

Delays and messages follow github.com/tdlib/telegram-bot-api (WebhookActor.cpp, Client.cpp), but for two things: a
refused connection waits like any other failure (Telegram probes every 2 s), and private addresses are allowed.
State is kept in memory. Neither token nor secret is logged. Needs aiohttp 3.11 (Debian 13: python3-aiohttp).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

WEBHOOK_PORTS = frozenset({80, 88, 443, 8443})
MAX_DELAY = 60  # seconds; Telegram draws from 60 to 120
MAX_RETRY_AFTER = 3600
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
IDLE_TIMEOUT = 60  # how long an unused connection to the webhook is kept

log = logging.getLogger("telegram")
Answer = dict[str, Any]
Params = Mapping[str, Any]


class ApiError(Exception):
    """What Telegram answers with {"ok": false}."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


@dataclass
class Backoff:
    """How long one update waits between attempts: not at all after the first failure, then 2, 4, 8 … seconds."""

    failures: int = 0
    delay: int = 1

    def after_failure(self, retry_after: int) -> int:
        """Seconds to wait now. `retry_after` is what the webhook asked for, 0 when it asked for nothing."""
        wait = min(retry_after, MAX_RETRY_AFTER)
        if not retry_after and self.failures:
            self.delay = min(self.delay * 2, MAX_DELAY)
            wait = self.delay
        self.failures += 1
        return wait


@dataclass
class Update:
    """An update and what became of it. `last_status` is None when the last attempt got no HTTP answer."""

    body: Answer
    attempts: int = 0
    deliveries: int = 0
    last_status: int | None = None

    @property
    def chat_id(self) -> int:
        return int(self.body["message"]["chat"]["id"])

    def counts(self) -> Answer:
        return {
            "update_id": self.body["update_id"],
            "attempts": self.attempts,
            "deliveries": self.deliveries,
            "last_status": self.last_status,
        }


@dataclass(frozen=True)
class Webhook:
    url: str
    secret_token: str = field(repr=False)
    max_connections: int
    ip_address: str = field(compare=False)


class Trust:
    """The roots a webhook's chain must lead to, read again when the file changes: pebble's is new at each start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The same object until the file changes, since aiohttp shares connections by it. OSError: can't be read."""
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_ino)
        if self._context is None or seen != self._seen:
            context = ssl.create_default_context(cafile=str(self._path))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context, self._seen = context, seen
        return self._context


class Bot:
    """The bot's webhook, its pending updates (a queue and a courier for each chat) and the messages it sent."""

    def __init__(self, trust: Trust) -> None:
        self.webhook: Webhook | None = None
        self.updates: dict[int, Update] = {}
        self.messages: list[Answer] = []
        self.calls: list[Answer] = []
        self.last_error: tuple[int, str] | None = None
        self._trust = trust
        self._pending: dict[int, deque[Update]] = {}
        self._couriers: dict[int, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._changing = asyncio.Lock()
        # Like Telegram's, the first id is drawn: a bot remembers ids for a day, also those of this program's last run.
        self._next_update_id = random.randrange(10**8, 10**9)

    @property
    def pending_update_count(self) -> int:
        return sum(len(queue) for queue in self._pending.values())

    def new_update(self, text: str, chat_id: int | None) -> int:
        """Queues a message from a private chat and returns its update_id. Without `chat_id` the chat is a new one."""
        update_id = self._next_update_id
        self._next_update_id += 1
        chat = update_id if chat_id is None else chat_id
        self.updates[update_id] = Update({"update_id": update_id, "message": incoming_message(update_id, chat, text)})
        self.enqueue(update_id)
        return update_id

    def enqueue(self, update_id: int) -> None:
        """Owes the update to the webhook (once more, if it had been delivered). KeyError when there is none."""
        update = self.updates[update_id]
        self._pending.setdefault(update.chat_id, deque()).append(update)
        self._start_courier(update.chat_id)

    async def set_webhook(self, webhook: Webhook | None, *, drop_pending: bool) -> None:
        """From now on updates go there, waiting ones at once. None: they are only kept."""
        async with self._changing:
            await self.close()
            if drop_pending:
                self._pending.clear()
            self.webhook = webhook
            self.last_error = None
            if webhook:
                self._session = open_session(webhook.max_connections)
                for chat_id in self._pending:
                    self._start_courier(chat_id)

    async def forget(self) -> None:
        """Drops all updates, their counts, what went wrong and what the bot sent; the webhook stays."""
        await self.set_webhook(self.webhook, drop_pending=True)
        self.last_error = None
        self.updates.clear()
        self.messages.clear()
        self.calls.clear()

    async def close(self) -> None:
        """Ends all deliveries. An update under way stays pending: nobody knows whether it arrived."""
        session, self._session = self._session, None  # first, so that no new courier starts while the old ones end
        couriers = list(self._couriers.values())
        self._couriers.clear()
        for courier in couriers:
            courier.cancel()
        await asyncio.gather(*couriers, return_exceptions=True)
        if session:
            await session.close()

    def _start_courier(self, chat_id: int) -> None:
        if self._session and self.webhook and chat_id not in self._couriers:
            self._couriers[chat_id] = asyncio.create_task(self._serve(chat_id, self._session, self.webhook))

    async def _serve(self, chat_id: int, session: aiohttp.ClientSession, webhook: Webhook) -> None:
        """Delivers a chat's updates in order: the next one only after the one before it was taken."""
        queue = self._pending[chat_id]
        while queue:
            backoff = Backoff()
            while (retry_after := await self._attempt(queue[0], session, webhook)) is not None:
                await asyncio.sleep(backoff.after_failure(retry_after))
            queue.popleft()
        del self._pending[chat_id], self._couriers[chat_id]

    async def _attempt(self, update: Update, session: aiohttp.ClientSession, webhook: Webhook) -> int | None:
        """None when the webhook took the update, otherwise the seconds it asked to wait (0: it didn't)."""
        update.attempts += 1
        headers = {"X-Telegram-Bot-Api-Secret-Token": webhook.secret_token} if webhook.secret_token else {}
        try:
            async with session.post(
                webhook.url, json=update.body, headers=headers, ssl=self._trust.context(), allow_redirects=False
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            update.last_status = None
            self._failed(update, connection_error(error))
            return 0
        update.last_status = response.status
        if 200 <= response.status <= 299:
            update.deliveries += 1
            return None
        self._failed(update, f"Wrong response from the webhook: {response.status} {response.reason}")
        return seconds(response.headers.get("Retry-After", ""))

    def _failed(self, update: Update, message: str) -> None:
        self.last_error = (int(time.time()), message)
        log.warning("update %s, attempt %s: %s", update.body["update_id"], update.attempts, message)


def open_session(max_connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(family=socket.AF_INET, limit=max_connections, keepalive_timeout=IDLE_TIMEOUT),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
    )


def connection_error(error: Exception) -> str:
    """What getWebhookInfo says about an attempt without an HTTP answer."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            message = f"SSL error {{{error.certificate_error}}}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            message = f"SSL error {{{error.strerror}}}"
        case aiohttp.ClientConnectorDNSError():
            message = f"Failed to resolve host: {error.os_error.strerror}"
        case aiohttp.ConnectionTimeoutError():
            message = "Connection timed out"
        case TimeoutError():
            message = "Read timeout expired"
        case FileNotFoundError():
            message = f"Can't create an SSL context: {error.filename} doesn't exist yet"
        case OSError(errno=int(code)):
            message = os.strerror(code)
        case _:
            message = "Webhook connection closed"
    return message


def seconds(retry_after: str) -> int:
    """A Retry-After header's seconds; 0 for anything else, its date form too, which Telegram doesn't read either."""
    return int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else 0


def incoming_message(message_id: int, chat_id: int, text: str) -> Answer:
    """A private chat's text message, with the entity that Telegram puts on a leading command."""
    person = {"id": chat_id, "first_name": "Lab", "username": f"lab{abs(chat_id)}"}
    message: Answer = {
        "message_id": message_id,
        "from": {**person, "is_bot": False, "language_code": "en"},
        "chat": {**person, "type": "private"},
        "date": int(time.time()),
        "text": text,
    }
    if command := re.match(r"/\w+(@\w+)?", text, re.ASCII):
        message["entities"] = [{"type": "bot_command", "offset": 0, "length": command.end()}]
    return message


# --- /bot<token>/METHOD -----------------------------------------------------------------------------------------------


def check_webhook(params: Params) -> tuple[str, str, int]:
    """(url, secret_token, max_connections) of a setWebhook call, or ApiError in Telegram's words."""
    url = str(params["url"])
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise ApiError(400, "Bad Request: invalid webhook URL specified") from error
    if parts.scheme != "https" or not parts.hostname:
        raise ApiError(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
    if port not in WEBHOOK_PORTS:
        raise ApiError(400, "Bad Request: bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443")
    secret_token = str(params.get("secret_token", ""))
    if len(secret_token) > 256:
        raise ApiError(400, "Bad Request: secret token is too long")
    if not re.fullmatch("[A-Za-z0-9_-]*", secret_token):
        raise ApiError(400, "Bad Request: secret token contains unallowed characters")
    return url, secret_token, max_connections(params.get("max_connections"))


def max_connections(value: object) -> int:
    """Telegram's default is 40; what lies outside 1–100 is moved to the nearer end, as Telegram does."""
    text = str(value)
    return min(max(int(text), 1), 100) if re.fullmatch("-?[0-9]{1,9}", text) else 40


def truthy(value: object) -> bool:
    return str(value).lower() in {"true", "yes", "1"}


def success(result: object, description: str | None = None) -> Answer:
    return {"ok": True, "result": result, **({"description": description} if description else {})}


async def ipv4_address(host: str) -> str:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except OSError as error:
        raise ApiError(400, f"Bad Request: bad webhook: Failed to resolve host: {error.strerror}") from error
    return str(found[0][4][0])


async def get_me(_bot: Bot, bot_id: int, _params: Params) -> Answer:
    return success(
        {
            **bot_user(bot_id),
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
        }
    )


async def set_webhook(bot: Bot, bot_id: int, params: Params) -> Answer:
    if not params.get("url"):
        return await delete_webhook(bot, bot_id, params)
    url, secret_token, connections = check_webhook(params)
    webhook = Webhook(url, secret_token, connections, await ipv4_address(urlsplit(url).hostname or ""))
    drop_pending = truthy(params.get("drop_pending_updates"))
    if webhook == bot.webhook and not drop_pending:
        return success(result=True, description="Webhook is already set")
    await bot.set_webhook(webhook, drop_pending=drop_pending)
    log.info("webhook set to %s (%s)", urlsplit(url).netloc, webhook.ip_address)
    return success(result=True, description="Webhook was set")


async def delete_webhook(bot: Bot, _bot_id: int, params: Params) -> Answer:
    had_one = bot.webhook is not None
    await bot.set_webhook(None, drop_pending=truthy(params.get("drop_pending_updates")))
    return success(result=True, description="Webhook was deleted" if had_one else "Webhook is already deleted")


async def get_webhook_info(bot: Bot, _bot_id: int, _params: Params) -> Answer:
    info: Answer = {
        "url": bot.webhook.url if bot.webhook else "",
        "has_custom_certificate": False,
        "pending_update_count": bot.pending_update_count,
    }
    if bot.last_error:
        info["last_error_date"], info["last_error_message"] = bot.last_error
    if bot.webhook:
        info |= {"max_connections": bot.webhook.max_connections, "ip_address": bot.webhook.ip_address}
    return success(info)


async def send_message(bot: Bot, bot_id: int, params: Params) -> Answer:
    chat_id, text = str(params.get("chat_id", "")), str(params.get("text", ""))
    if not chat_id:
        raise ApiError(400, "Bad Request: chat_id is empty")
    if not re.fullmatch("-?[0-9]+", chat_id):
        raise ApiError(400, "Bad Request: chat not found")
    if not text:
        raise ApiError(400, "Bad Request: message text is empty")
    if len(text) > 4096:
        raise ApiError(400, "Bad Request: message is too long")
    message = {
        "message_id": len(bot.messages) + 1,
        "from": bot_user(bot_id),
        "chat": {"id": int(chat_id), "type": "private"},
        "date": int(time.time()),
        "text": text,
    }
    bot.messages.append(message)
    return success(message)


async def answer_callback_query(_bot: Bot, _bot_id: int, params: Params) -> Answer:
    if not params.get("callback_query_id"):
        raise ApiError(400, "Bad Request: query ID is invalid")
    return success(result=True)


def bot_user(bot_id: int) -> Answer:
    return {"id": bot_id, "is_bot": True, "first_name": "Lab bot", "username": "lab_bot"}


METHODS: dict[str, Callable[[Bot, int, Params], Awaitable[Answer]]] = {
    "getme": get_me,
    "setwebhook": set_webhook,
    "deletewebhook": delete_webhook,
    "getwebhookinfo": get_webhook_info,
    "sendmessage": send_message,
    "answercallbackquery": answer_callback_query,
}


async def parameters(request: web.Request) -> Params:
    """The query's, form's or JSON body's parameters; the body wins."""
    if request.content_type != "application/json":
        return {**request.query, **await request.post()}
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "Bad Request: can't parse request JSON object")
    return {**request.query, **body}


def known_tokens(path: Path) -> set[str]:
    """The file's tokens, one a line, all of them this bot's. Read at each call: a rotated one counts at once."""
    return set(re.findall(r"^[0-9]+:[A-Za-z0-9_-]+$", path.read_text(), re.MULTILINE))


def api(bot: Bot, token_file: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        token = request.match_info["token"]
        try:
            if token not in known_tokens(token_file):
                raise ApiError(401, "Unauthorized")
            method = METHODS.get(request.match_info["method"].lower())
            if method is None:
                raise ApiError(404, "Not Found: method not found")
            bot_id = int(token.partition(":")[0])
            bot.calls.append({"method": request.match_info["method"], "from": request.remote})
            return web.json_response(await method(bot, bot_id, await parameters(request)))
        except ApiError as error:
            return failure(error)

    return handle


def failure(error: ApiError) -> web.Response:
    body = {"ok": False, "error_code": error.code, "description": error.description}
    return web.json_response(body, status=error.code)


async def not_found(_request: web.Request) -> web.Response:
    return failure(ApiError(404, "Not Found"))


# --- /lab/ ------------------------------------------------------------------------------------------------------------


class Lab:
    """The lab's own handles: cause updates, look at what happened to them."""

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


# --- start ------------------------------------------------------------------------------------------------------------


def make_app(token_file: Path, trust_file: Path) -> web.Application:
    bot = Bot(Trust(trust_file))

    async def close(_app: web.Application) -> AsyncIterator[None]:
        yield
        await bot.close()

    app = web.Application()
    app.cleanup_ctx.append(close)
    app.add_routes(Lab(bot).routes())
    for verb in ("GET", "POST"):
        app.router.add_route(verb, "/bot{token}/{method}", api(bot, token_file))
    app.router.add_route("*", "/{path:.*}", not_found)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for the Telegram Bot API.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--token-file", required=True, type=Path, help="the bot's tokens, one a line")
    parser.add_argument("--trust", required=True, type=Path, help="PEM file of the roots a webhook may lead to")
    arguments = parser.parse_args()
    if not known_tokens(arguments.token_file):
        parser.error(f"{arguments.token_file} holds no token: write one like 123456:ABC-def into it, without quotes")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    host, _, port = arguments.listen.rpartition(":")
    # No access log: the token is part of the path.
    web.run_app(make_app(arguments.token_file, arguments.trust), host=host, port=int(port), access_log=None)


if __name__ == "__main__":
    main()
