"""/bot<token>/METHOD: the methods that the bot calls, with Telegram's answers and error messages."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from .delivery import Answer, Bot, Webhook, log

WEBHOOK_PORTS = frozenset({80, 88, 443, 8443})
Params = Mapping[str, Any]


class ApiError(Exception):
    """An error that is answered with {"ok": false}."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


def check_webhook(params: Params) -> tuple[str, str, int]:
    """Return (url, secret_token, max_connections) of a setWebhook call, or raise ApiError in Telegram's words."""
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
    """Return a number from 1 to 100 as Telegram does. The default is 40, and a number outside this range is clamped."""
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
    """Return the parameters of the query and of the form or JSON body; the body wins."""
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
    """Return the bot's tokens, one per line of the file. Each call reads the file, so a new token works immediately."""
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
