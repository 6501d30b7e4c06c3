"""Keep-alive clients that post updates as Telegram does, with a network delay, and the outcome of each request.

    with load(target) as running:
        running.phase("before"), time.sleep(10)
        running.phase("during"), release()
    assert not running.tally.lost

A request is lost if it was sent and no 2xx answer came back. The clients never repeat a request. If the server closes
an idle connection, the client opens a new one, as any client does. If the new connection fails, the request is lost.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from math import ceil

from deploys.secrets.env_file import read_env_file
from tests.lab.layout import ENV_FILE, by_name
from tests.support.environment import Environment
from tests.support.relay import relay

CLIENTS = 40
RATE = 120  # requests per second of all clients together; a higher rate would make the clients the bottleneck (`busy`)
ROUND_TRIP_S = 0.030
ANSWER_WITHIN_S = 20.0
LONGEST_S = 900.0
CHATS = 2_000  # a chat may send 30 messages a minute
AROUND_A_SWITCH_S = 1.0


@dataclass(frozen=True)
class Target:
    """A droplet's webhook. The relay connects to `address`, and the clients request `host`."""

    address: str
    host: str
    secret: str = field(repr=False)
    roots: str = field(repr=False)
    """The trusted roots as PEM."""
    port: int = 443
    path: str = "/webhook/telegram"


def lab_target(env: Environment) -> Target:
    """Return the webhook of the lab's first droplet."""
    return Target(
        address=str(by_name(env.hosts("edge")[0]).ipv4),
        host=env.settings.values.domain,
        secret=read_env_file(ENV_FILE)["TELEGRAM_WEBHOOK_SECRET"],
        roots=env.outside.check_output("cat /root/acme-root.pem"),
    )


@dataclass(frozen=True)
class Request:
    """A request and its outcome. Times are Unix time."""

    update_id: int
    phase: str
    began: float
    ended: float
    outcome: str
    """The answer's status, or the reason for a missing answer."""

    @property
    def lost(self) -> bool:
        return not (len(self.outcome) == 3 and self.outcome.startswith("2"))

    @property
    def ms(self) -> float:
        return (self.ended - self.began) * 1000


@dataclass
class Tally:
    """All requests so far."""

    requests: list[Request] = field(default_factory=list, repr=False)
    connections: int = 0
    busy: float = 0.0
    """The share of a core that the clients and the relay used. Near 1, this machine is the bottleneck."""

    @property
    def lost(self) -> list[Request]:
        return [request for request in self.requests if request.lost]

    @property
    def outcomes(self) -> Counter[str]:
        """The number of answers by status, and of missing answers by reason."""
        return Counter(request.outcome for request in self.requests)

    def of(self, phase: str) -> Tally:
        return Tally([request for request in self.requests if request.phase == phase])

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(request.phase for request in self.requests))

    def gaps(self, since: float, until: float) -> list[float]:
        """Return the milliseconds between successive successful answers."""
        answered = sorted(r.ended for r in self.requests if not r.lost and since <= r.ended <= until)
        return [(after - before) * 1000 for before, after in pairwise([since, *answered, until])]

    def gap_around(self, moment: float) -> float:
        """Return the largest gap around `moment`, the time of a flip, in milliseconds."""
        return max(self.gaps(moment - AROUND_A_SWITCH_S, moment + AROUND_A_SWITCH_S))

    def table(self) -> str:
        """Return a line for each phase and for each reason of a loss."""
        lines = [f"{'':<22}{'requests':>9}{'lost':>6}{'/s':>6}   {'p50':>6}{'p95':>7}{'p99':>7}{'max':>8}  ms"]
        lines += [_line(phase, self.of(phase)) for phase in self.phases]
        lines += [_line("all", self)]
        lines += [f"  lost: {times} x {why}" for why, times in Counter(one.outcome for one in self.lost).most_common()]
        lines += [f"  {self.connections} connections opened; clients and relay took {self.busy:.0%} of a core"]
        return "\n".join(lines)


def _line(name: str, tally: Tally) -> str:
    times = sorted(request.ms for request in tally.requests if not request.lost)
    ends = [request.ended for request in tally.requests]
    rate = len(ends) / (max(ends) - min(ends)) if len(ends) > 1 else 0.0
    p50, p95, p99, p100 = (percentile(times, share) for share in (0.5, 0.95, 0.99, 1))
    return f"{name:<22}{len(ends):>9}{len(tally.lost):>6}{rate:>6.0f}   {p50:>6.0f}{p95:>7.0f}{p99:>7.0f}{p100:>8.0f}"


def percentile(times: Sequence[float], share: float) -> float:
    """Return the percentile `share` of the sorted `times`."""
    return times[ceil(share * len(times)) - 1] if times else float("nan")


@dataclass
class Running:
    """A running load."""

    tally: Tally = field(default_factory=Tally)
    _phase: str = "connecting"
    _ended: threading.Event = field(default_factory=threading.Event)

    def phase(self, name: str) -> None:
        """Count the requests that begin from now on as requests of this phase."""
        self._phase = name

    @property
    def ended(self) -> bool:
        """True once the load sends no more requests."""
        return self._ended.is_set()

    def until(self, requests: int) -> None:
        """Wait until this many requests were answered or lost. Raise AssertionError if the load ends earlier."""
        while len(self.tally.requests) < requests:
            assert not self._ended.wait(0.1), f"the load ended after {len(self.tally.requests)} requests"


@contextmanager
def load(target: Target, *, clients: int = CLIENTS, rate: float = RATE, fresh: int = 0) -> Iterator[Running]:
    """Run the clients in a thread. `fresh` is the number of additional clients that open a connection per request.

    When the context ends, it waits for the last answers, so that the tally is complete. The load stops after LONGEST_S.
    """
    running, stop = Running(), threading.Event()
    done: Future[None] = Future()

    def work() -> None:
        try:
            asyncio.run(_load(target, running, stop, clients=clients, rate=rate, fresh=fresh))
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)
        finally:
            running._ended.set()

    thread = threading.Thread(target=work, name="load", daemon=True)
    thread.start()
    try:
        yield running
    finally:
        stop.set()
        thread.join()
    done.result()
    assert running.tally.requests, "the load sent nothing"


async def _load(
    target: Target, running: Running, stop: threading.Event, *, clients: int, rate: float, fresh: int
) -> None:
    context = ssl.create_default_context(cadata=target.roots)
    began, took = time.monotonic(), time.thread_time()
    async with relay(target.address, target.port, ROUND_TRIP_S / 2) as port:
        numbers = count(time.time_ns() // 1_000)
        interval = (clients + fresh) / rate
        senders = [
            asyncio.create_task(
                Client(target, context, port, running, keeps=number < clients).work(numbers, interval, stop)
            )
            for number in range(clients + fresh)
        ]
        await asyncio.gather(*senders)
    running.tally.busy = (time.thread_time() - took) / (time.monotonic() - began)


@dataclass
class Client:
    """A client that keeps its connection or, if `keeps` is false, opens one for each request."""

    target: Target
    context: ssl.SSLContext
    port: int
    running: Running
    keeps: bool
    _connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def work(self, numbers: Iterator[int], interval: float, stop: threading.Event) -> None:
        """Send one update per interval. After a delay, do not send the missed updates."""
        began = time.monotonic()
        due = began + random.uniform(0, interval)
        while not stop.is_set() and due < began + LONGEST_S:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic())
            phase, sent = self.running._phase, time.time()
            update_id = next(numbers)
            outcome = await self._send(update_id)
            self.running.tally.requests.append(Request(update_id, phase, sent, time.time(), outcome))
        self._close()

    async def _send(self, update_id: int) -> str:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await self._connected()
                # No `await` separates this line from the check of the connection, so the connection is still open.
                writer.write(_request(self.target, update_id))
                status, stays = await _answer(reader)
        except EOFError:
            self._close()
            return "closed without an answer"
        except (OSError, ValueError) as error:
            self._close()
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if not (stays and self.keeps):
            self._close()
        return status

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection:
            reader, writer = self._connection
            if not (reader.at_eof() or writer.is_closing()):
                return self._connection
            self._close()
        self._connection = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname=self.target.host
        )
        self.running.tally.connections += 1
        return self._connection

    def _close(self) -> None:
        if self._connection:
            self._connection[1].transport.abort()
            self._connection = None


def _request(target: Target, update_id: int) -> bytes:
    chat = {"id": 1_000_000 + update_id % CHATS, "first_name": "Load"}
    message = {
        "message_id": update_id % 1_000_000_000,
        "from": {**chat, "is_bot": False},
        "chat": {**chat, "type": "private"},
        "date": int(time.time()),
        "text": "/offers",
        "entities": [{"type": "bot_command", "offset": 0, "length": 7}],
    }
    body = json.dumps({"update_id": update_id, "message": message}).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: application/json\r\n"
        f"X-Telegram-Bot-Api-Secret-Token: {target.secret}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """Return an answer's status and whether the connection stays open. Raise ValueError if the answer is not HTTP."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status_line, *lines = head.rstrip().split("\r\n")
    version, status, *_ = status_line.split(" ")
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if version != "http/1.1" or "content-length" not in headers:
        raise ValueError(f"an answer without content-length: {status_line}")
    await reader.readexactly(int(headers["content-length"]))
    return status, headers.get("connection") != "close"
