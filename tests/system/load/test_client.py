"""The load's client counts the right requests as lost.

Each server in these tests misbehaves in one way. No droplet is needed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from tests.support import load as load_module
from tests.support.load import ROUND_TRIP_S, Target, load
from tests.support.relay import RESETS_AT_CLOSE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FASTEST = 1_000_000.0
"""A rate that no client reaches, so each client sends its next request as soon as the last one is answered."""
ANSWERED_WELL = 3
"""The number of requests per connection that the servers below answer before they misbehave."""

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]
Serving = Callable[[Act], AbstractContextManager[Target]]


async def answer(writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS_AT_CLOSE)
    writer.transport.abort()


async def refuse(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def answer_half(writer: asyncio.StreamWriter) -> None:
    writer.write(OK[:-1])
    writer.close()


async def answer_and_part(writer: asyncio.StreamWriter) -> None:
    writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    writer.close()


async def answer_and_close_soon(writer: asyncio.StreamWriter) -> None:
    """Answer, then close the connection a third of a round trip later, as nginx does when it is reloaded."""
    writer.write(OK)
    await asyncio.sleep(ROUND_TRIP_S / 3)
    writer.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Create a certificate for localhost. Return the paths of the certificate and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = ["openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


@pytest.fixture
def serving(certificate: tuple[Path, Path]) -> Serving:
    """Return a function that starts a server. On each connection, the server first answers well, then misbehaves."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    @contextmanager
    def serving(act: Act) -> Iterator[Target]:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(EOFError, OSError):
                for number in count():
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    await reader.readexactly(int(head.partition("Content-Length: ")[2].split()[0]))
                    await (answer if number < ANSWERED_WELL else act)(writer)

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(converse, "127.0.0.1", 0, ssl=context), loop)
        port = starting.result().sockets[0].getsockname()[1]
        try:
            yield Target("127.0.0.1", "localhost", "secret", certificate[0].read_text(), port=port)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    return serving


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (close, "closed without an answer"),
        (reset, "ConnectionResetError"),
        (refuse, "503"),
        (answer_half, "closed without an answer"),
        (say_nothing, "TimeoutError"),
        (answer_and_close_soon, "closed without an answer"),
    ],
)
def test_a_request_without_a_good_answer_is_lost(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, act: Act, outcome: str
) -> None:
    monkeypatch.setattr(load_module, "ANSWER_WITHIN_S", 0.5)
    with serving(act) as target, load(target, clients=2, rate=FASTEST) as running:
        running.until(10 * ANSWERED_WELL)
    outcomes = running.tally.outcomes
    assert {one.partition(":")[0] for one in outcomes} == {"200", outcome}
    assert len(running.tally.lost) == outcomes.total() - outcomes["200"]


@pytest.mark.parametrize(("act", "rate"), [(answer, FASTEST), (answer_and_part, FASTEST), (answer_and_close_soon, 10)])
def test_a_connection_that_ends_between_requests_loses_none(serving: Serving, act: Act, rate: float) -> None:
    with serving(act) as target, load(target, clients=2, rate=rate) as running:
        running.until(4 * ANSWERED_WELL)
    assert running.tally.outcomes.keys() == {"200"}
    assert (running.tally.connections > 2) == (act is not answer)


def test_a_server_that_is_not_there_loses_every_request(certificate: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    target = Target("127.0.0.1", "localhost", "secret", certificate[0].read_text(), port=port)
    with load(target, clients=2, rate=FASTEST) as running:
        running.until(4)
    assert len(running.tally.lost) == len(running.tally.requests)


def test_distance_costs_a_round_trip(serving: Serving) -> None:
    with serving(answer) as target, load(target, clients=1, rate=FASTEST) as running:
        running.until(10)
    shortest = min(request.ms for request in running.tally.requests)
    assert ROUND_TRIP_S * 1000 <= shortest < ROUND_TRIP_S * 2000


def test_clients_that_keep_nothing_open_a_connection_for_each_request(serving: Serving) -> None:
    with serving(answer) as target, load(target, clients=0, fresh=2, rate=FASTEST) as running:
        running.until(10)
    assert running.tally.connections == len(running.tally.requests)
    assert not running.tally.lost


def test_a_load_ends_by_itself(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "LONGEST_S", 0.5)
    with (
        serving(answer) as target,
        load(target, clients=1, rate=FASTEST) as running,
        pytest.raises(AssertionError, match="the load ended after"),
    ):
        running.until(1_000_000)
