"""Updates and their delivery to the webhook, with Telegram's delays and error messages."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

MAX_DELAY = 60  # seconds; Telegram chooses a number from 60 to 120
MAX_RETRY_AFTER = 3600
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
IDLE_TIMEOUT = 60  # seconds for which an unused connection to the webhook is kept

log = logging.getLogger("telegram")
Answer = dict[str, Any]


@dataclass
class Backoff:
    """The delay between attempts for one update.

    The delay is 0 after the first failure, and 2, 4, 8 … seconds after further failures.
    """

    failures: int = 0
    delay: int = 1

    def after_failure(self, retry_after: int) -> int:
        """Return the seconds to wait after this failure.

        `retry_after` is the delay for which the webhook asked, or 0.
        """
        wait = min(retry_after, MAX_RETRY_AFTER)
        if not retry_after and self.failures:
            self.delay = min(self.delay * 2, MAX_DELAY)
            wait = self.delay
        self.failures += 1
        return wait


@dataclass
class Update:
    """An update and its deliveries. `last_status` is None if the last attempt got no HTTP answer."""

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
    """The roots for a webhook's chain.

    The file is read again after a change, because pebble creates a new root at each start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the same object until the file changes, because aiohttp shares connections only within an SSL context.

        Raise OSError.
        """
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_ino)
        if self._context is None or seen != self._seen:
            context = ssl.create_default_context(cafile=str(self._path))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context, self._seen = context, seen
        return self._context


class Bot:
    """The bot's webhook, its pending updates (a queue and a courier for each chat), and its messages."""

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
        # The first ID is random, as at Telegram, because a bot remembers IDs for a day, even after this program
        # restarts.
        self._next_update_id = random.randrange(10**8, 10**9)

    @property
    def pending_update_count(self) -> int:
        return sum(len(queue) for queue in self._pending.values())

    def new_update(self, text: str, chat_id: int | None) -> int:
        """Queue a message from a private chat and return its update_id. Without `chat_id` the chat is a new one."""
        update_id = self._next_update_id
        self._next_update_id += 1
        chat = update_id if chat_id is None else chat_id
        self.updates[update_id] = Update({"update_id": update_id, "message": incoming_message(update_id, chat, text)})
        self.enqueue(update_id)
        return update_id

    def enqueue(self, update_id: int) -> None:
        """Make the update pending, even if it has been delivered. Raise KeyError for an unknown update."""
        update = self.updates[update_id]
        self._pending.setdefault(update.chat_id, deque()).append(update)
        self._start_courier(update.chat_id)

    async def set_webhook(self, webhook: Webhook | None, *, drop_pending: bool) -> None:
        """Deliver all updates to this webhook from now on, pending ones at once. With None, only keep them."""
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
        """Drop all updates, their counts, the last error and the bot's messages and calls; the webhook stays."""
        await self.set_webhook(self.webhook, drop_pending=True)
        self.last_error = None
        self.updates.clear()
        self.messages.clear()
        self.calls.clear()

    async def close(self) -> None:
        """End all deliveries. An update under way stays pending, because it may not have arrived."""
        session, self._session = self._session, None  # no new courier starts while the old ones end
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
        """Deliver a chat's updates in order: the next one only after the previous one was accepted."""
        queue = self._pending[chat_id]
        while queue:
            backoff = Backoff()
            while (retry_after := await self._attempt(queue[0], session, webhook)) is not None:
                await asyncio.sleep(backoff.after_failure(retry_after))
            queue.popleft()
        del self._pending[chat_id], self._couriers[chat_id]

    async def _attempt(self, update: Update, session: aiohttp.ClientSession, webhook: Webhook) -> int | None:
        """Return None if the webhook accepted the update. Otherwise return the seconds that it asked to wait, or 0."""
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
    """Return getWebhookInfo's message for an attempt without an HTTP answer."""
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
    """Return the seconds of a Retry-After header, or 0 if the header has another form.

    Telegram also ignores a date in this header.
    """
    return int(retry_after) if re.fullmatch("[0-9]{1,9}", retry_after) else 0


def incoming_message(message_id: int, chat_id: int, text: str) -> Answer:
    """Return a private chat's text message, with the entity that Telegram puts on a leading command."""
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
