"""The lab's Telegram refuses, delays and delivers as the real one does."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.world.telegram import delivery, methods
from tests.lab.world.telegram.app import make_app

TOKEN = "123456:lab-TOKEN_of-the-unit-tests"
SECRET = "webhook_Secret-1"
Client = TestClient[web.Request, web.Application]


def self_signed(directory: Path) -> Path:
    """Write a PEM file with a certificate for localhost and its key, for the server and as a trusted root."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "localhost.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return pem


class Hook:
    """A webhook on localhost that records the requests.

    It answers with each of `statuses` in turn, and after that with 200.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.update_ids: list[int] = []
        self.secrets: set[str | None] = set()
        self.busy = self.most_busy = 0
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        self.update_ids.append((await request.json())["update_id"])
        self.secrets.add(request.headers.get("X-Telegram-Bot-Api-Secret-Token"))
        await asyncio.sleep(0.01)
        self.busy -= 1
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def api(tmp_path: Path) -> AsyncIterator[Client]:
    """Start the stand-in with tmp_path/trust.pem as its trusted roots."""
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    async with TestClient(TestServer(make_app(tmp_path / "tokens", tmp_path / "trust.pem"))) as client:
        yield client


@asynccontextmanager
async def webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hook]:
    """Start a webhook over HTTPS whose certificate is tmp_path/localhost.pem, on a port that the stand-in allows."""
    hook = Hook()
    app = web.Application()
    app.router.add_post("/hook", hook.receive)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    monkeypatch.setattr(methods, "WEBHOOK_PORTS", {server.port})
    hook.url = f"https://localhost:{server.port}/hook"
    try:
        yield hook
    finally:
        await server.close()


async def call(client: Client, method: str, **params: Any) -> dict[str, Any]:
    response = await client.post(f"/bot{TOKEN}/{method}", json=params)
    answer: dict[str, Any] = await response.json()
    assert answer["ok"] == (response.status == 200)
    return answer


async def lab(client: Client, path: str, **body: Any) -> dict[str, Any]:
    response = await client.post(f"/lab/{path}", json=body)
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def counts(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await (await client.get("/lab/updates")).json())["updates"]
    return found


async def webhook_info(client: Client) -> dict[str, Any]:
    info: dict[str, Any] = (await call(client, "getWebhookInfo"))["result"]
    return info


async def delivered(client: Client) -> None:
    async with asyncio.timeout(2):
        while (await webhook_info(client))["pending_update_count"]:
            await asyncio.sleep(0.01)


# --- rules ---


def test_the_delay_is_zero_then_doubles_up_to_a_minute() -> None:
    backoff = delivery.Backoff()
    assert [backoff.after_failure(0) for _ in range(8)] == [0, 2, 4, 8, 16, 32, 60, 60]


def test_a_delay_that_the_webhook_asks_for_is_kept_and_not_doubled() -> None:
    backoff = delivery.Backoff()
    assert [backoff.after_failure(wait) for wait in (5, 5, 86400, 0, 0)] == [5, 5, 3600, 2, 4]


@pytest.mark.parametrize(
    ("header", "wait"), [("5", 5), ("", 0), ("-5", 0), ("1.5", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)]
)
def test_retry_after_is_read_in_seconds_only(header: str, wait: int) -> None:
    assert delivery.seconds(header) == wait


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"url": "http://bot.lab.test/"}, "An HTTPS URL must be provided"),
        ({"url": "bot.lab.test"}, "An HTTPS URL must be provided"),
        ({"url": "https://bot.lab.test:8080/"}, "only on ports 80, 88, 443 or 8443"),
        ({"url": "https://bot.lab.test:99999/"}, "invalid webhook URL"),
        ({"url": "https://bot.lab.test/", "secret_token": "a b"}, "unallowed characters"),
        ({"url": "https://bot.lab.test/", "secret_token": "é"}, "unallowed characters"),
        ({"url": "https://bot.lab.test/", "secret_token": "a" * 257}, "too long"),
    ],
)
def test_a_bad_webhook_is_refused(params: dict[str, str], reason: str) -> None:
    with pytest.raises(methods.ApiError, match=reason) as refusal:
        methods.check_webhook(params)
    assert refusal.value.code == 400


@pytest.mark.parametrize("port", ["", ":443", ":80", ":88", ":8443"])
def test_telegrams_ports_and_a_secret_of_256_characters_are_accepted(port: str) -> None:
    url, secret = f"https://bot.lab.test{port}/webhook/telegram", "aZ0_-" * 51 + "x"
    assert methods.check_webhook({"url": url, "secret_token": secret}) == (url, secret, 40)


@pytest.mark.parametrize(("value", "used"), [(None, 40), ("7", 7), (7, 7), (0, 1), (1000, 100), ("x", 40)])
def test_max_connections_stay_within_telegrams_range(value: object, used: int) -> None:
    assert methods.max_connections(value) == used


def test_a_command_carries_its_entity() -> None:
    message = delivery.incoming_message(1, 7, "/reserve@lab_bot 3")
    assert message["entities"] == [{"type": "bot_command", "offset": 0, "length": 16}]
    assert "entities" not in delivery.incoming_message(1, 7, "hello /start")


# --- methods ---


@pytest.mark.parametrize(
    ("path", "code", "description"),
    [
        ("/bot1:wrong/getMe", 401, "Unauthorized"),
        (f"/bot{TOKEN}/getNothing", 404, "Not Found: method not found"),
        ("/", 404, "Not Found"),
    ],
)
def test_errors_have_telegrams_shape(tmp_path: Path, path: str, code: int, description: str) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client:
            response = await client.get(path)
            assert response.status == code
            assert await response.json() == {"ok": False, "error_code": code, "description": description}

    asyncio.run(scenario())


def test_a_token_can_be_replaced_while_it_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client:
            assert (await call(client, "getMe"))["result"]["id"] == 123456
            (tmp_path / "tokens").write_text("123456:another\n")
            assert (await call(client, "getMe"))["error_code"] == 401

    asyncio.run(scenario())


def test_messages_are_recorded_from_query_form_and_json(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client:
            path, params = f"/bot{TOKEN}/sendMessage", {"chat_id": "7", "text": "Olá & grüße"}
            await client.get(path, params=params)
            await client.post(path, data=params)
            await client.post(path, json={"chat_id": 7, "text": params["text"]})
            messages = (await (await client.get("/lab/messages")).json())["messages"]
            assert [(m["message_id"], m["chat"]["id"], m["text"]) for m in messages] == [
                (number, 7, "Olá & grüße") for number in (1, 2, 3)
            ]
            assert (await call(client, "sendMessage", chat_id=7))["error_code"] == 400
            calls = (await (await client.get("/lab/calls")).json())["calls"]
            assert calls == [{"method": "sendMessage", "from": "127.0.0.1"}] * 4
            await client.post("/lab/forget")
            assert (await (await client.get("/lab/calls")).json())["calls"] == []

    asyncio.run(scenario())


def test_webhook_is_set_once_shown_without_its_secret_and_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client:
            params = {"url": "https://localhost/hook", "secret_token": SECRET, "max_connections": 5}
            assert (await call(client, "setWebhook", **params))["description"] == "Webhook was set"
            assert (await call(client, "setWebhook", **params))["description"] == "Webhook is already set"
            assert await webhook_info(client) == {
                "url": "https://localhost/hook",
                "has_custom_certificate": False,
                "pending_update_count": 0,
                "max_connections": 5,
                "ip_address": "127.0.0.1",
            }
            assert (await call(client, "deleteWebhook"))["description"] == "Webhook was deleted"
            assert (await webhook_info(client))["url"] == ""

    asyncio.run(scenario())


# --- deliveries ---


def test_pending_updates_are_delivered_and_repeated_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client, webhook(tmp_path, monkeypatch) as hook:
            (tmp_path / "localhost.pem").rename(tmp_path / "trust.pem")
            update_ids = (await lab(client, "updates", count=3, text="/offers", chat_id=7))["update_ids"]
            assert update_ids == list(range(update_ids[0], update_ids[0] + 3))
            assert (await webhook_info(client))["pending_update_count"] == 3

            await call(client, "setWebhook", url=hook.url, secret_token=SECRET)
            await delivered(client)
            assert hook.update_ids == update_ids, "a chat's updates came in another order"
            assert (hook.most_busy, hook.secrets) == (1, {SECRET})

            await lab(client, "repeat", update_id=update_ids[1])
            await delivered(client)
            assert await counts(client) == [
                {"update_id": update_ids[0], "attempts": 1, "deliveries": 1, "last_status": 200},
                {"update_id": update_ids[1], "attempts": 2, "deliveries": 2, "last_status": 200},
                {"update_id": update_ids[2], "attempts": 1, "deliveries": 1, "last_status": 200},
            ]
            assert "last_error_date" not in await webhook_info(client)

            await lab(client, "forget")
            assert await counts(client) == []
            assert (await webhook_info(client))["url"] == hook.url

    asyncio.run(scenario())


def test_chats_are_served_in_parallel_up_to_max_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with api(tmp_path) as client, webhook(tmp_path, monkeypatch) as hook:
            (tmp_path / "localhost.pem").rename(tmp_path / "trust.pem")
            await call(client, "setWebhook", url=hook.url, max_connections=3)
            await lab(client, "updates", count=12)
            await delivered(client)
            assert hook.most_busy == 3
            assert len(set(hook.update_ids)) == 12

    asyncio.run(scenario())


def test_a_failed_delivery_is_tried_again_and_its_error_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "telegram")

    async def scenario() -> None:
        async with api(tmp_path) as client, webhook(tmp_path, monkeypatch) as hook:
            (tmp_path / "localhost.pem").rename(tmp_path / "trust.pem")
            hook.statuses = [503, 204]
            await call(client, "setWebhook", url=hook.url, secret_token=SECRET)
            await lab(client, "updates")
            await delivered(client)
            [update] = await counts(client)
            assert (update["attempts"], update["deliveries"], update["last_status"]) == (2, 1, 204)
            error = (await webhook_info(client))["last_error_message"]
            assert error == "Wrong response from the webhook: 503 Service Unavailable"

    asyncio.run(scenario())
    assert "503 Service Unavailable" in caplog.text
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text


def test_updates_go_only_to_a_trusted_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.Backoff, "after_failure", lambda _backoff, _wait: 0.01)
    (tmp_path / "other").mkdir()
    self_signed(tmp_path / "other").rename(tmp_path / "trust.pem")

    async def scenario() -> None:
        async with api(tmp_path) as client, webhook(tmp_path, monkeypatch) as hook:
            await call(client, "setWebhook", url=hook.url)
            await lab(client, "updates")
            while "SSL error {" not in (await webhook_info(client)).get("last_error_message", ""):
                await asyncio.sleep(0.01)
            assert hook.update_ids == []
            assert (await counts(client))[0]["last_status"] is None

            (tmp_path / "localhost.pem").rename(tmp_path / "trust.pem")
            await delivered(client)
            assert len(hook.update_ids) == 1

    asyncio.run(asyncio.wait_for(scenario(), 2))


def test_a_refused_connection_is_shown_as_the_last_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    self_signed(tmp_path).rename(tmp_path / "trust.pem")

    async def scenario() -> None:
        async with api(tmp_path) as client:
            async with webhook(tmp_path, monkeypatch) as hook:
                await call(client, "setWebhook", url=hook.url)
            await lab(client, "updates")
            while not (message := (await webhook_info(client)).get("last_error_message")):
                await asyncio.sleep(0.01)
            assert message == "Connection refused"

    asyncio.run(asyncio.wait_for(scenario(), 2))
