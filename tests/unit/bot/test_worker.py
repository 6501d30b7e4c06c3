"""Only one worker works at a time.

The worker does one job after another, and finishes its job before it stops. These tests keep the queue in memory.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from marketplace_bot.jobs import Job, Jobs
from marketplace_bot.settings import read_settings
from marketplace_bot.worker import Worker, effects
from psycopg import OperationalError

BOT = Path(__file__).parents[2] / "lab/bot"
TIMEOUT_S = 5  # every test takes a fraction of a second


class Queue:
    """A queue of jobs in memory, whose connection can be lost."""

    def __init__(self, *kinds: str) -> None:
        self.waiting = [Job(number, number, kind, {}) for number, kind in enumerate(kinds, start=1)]
        self.ended: list[tuple[int, bool]] = []
        self.another_works = False
        self.lost = False
        self.closed = False

    async def lock(self) -> bool:
        await self.ping()
        return not self.another_works

    async def ping(self) -> None:
        if self.lost:
            raise OperationalError("the connection is lost")

    async def take(self, kinds: list[str]) -> Job | None:
        await self.ping()
        return next((self.waiting.pop(index) for index, job in enumerate(self.waiting) if job.kind in kinds), None)

    async def end(self, job: Job, *, done: bool) -> None:
        await self.ping()
        self.ended.append((job.id, done))

    async def close(self) -> None:
        self.closed = True


class Bench:
    """A worker whose job `slow` the test controls.

    The job sets `begun` when it starts, and ends when the test sets `go`.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.stopping = asyncio.Event()
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = False
        self.reachable = True
        self.worker = Worker(self.connect, {"slow": self.slow, "quick": self.quick, "bad": self.bad}, self.stopping)

    async def connect(self) -> Jobs:
        if not self.reachable:
            raise OperationalError("connection refused")
        return cast("Jobs", self.queue)

    async def slow(self, payload: dict[str, Any]) -> None:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def quick(self, payload: dict[str, Any]) -> None:
        if not self.queue.waiting:
            self.stopping.set()

    async def bad(self, payload: dict[str, Any]) -> None:
        await self.quick(payload)
        raise ValueError("oh")

    async def ready(self) -> tuple[int, list[str]]:
        response = await self.worker.ready(cast("web.Request", None))
        return response.status, json.loads(cast("str", response.text))["reasons"]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_EVERY", "LOOK_EVERY", "PING_EVERY"):
        monkeypatch.setattr(f"marketplace_bot.worker.{name}", 0.01)


def play(queue: Queue, scene: Callable[[Bench, asyncio.Task[None]], Awaitable[None]] | None = None) -> Bench:
    """Run a worker on `queue`, run `scene` meanwhile, and return the bench when the worker has ended."""

    async def stage() -> Bench:
        bench = Bench(queue)
        working = asyncio.ensure_future(bench.worker.work())
        if scene:
            await scene(bench, working)
        await working
        return bench

    return asyncio.run(asyncio.wait_for(stage(), TIMEOUT_S))


async def a_moment() -> None:
    await asyncio.sleep(0.05)


def test_jobs_are_done_in_their_order() -> None:
    queue = Queue("quick", "quick", "quick")
    play(queue)
    assert queue.ended == [(1, True), (2, True), (3, True)]
    assert queue.closed


def test_a_failed_job_is_not_done_and_holds_up_no_other() -> None:
    queue = Queue("bad", "quick")
    play(queue)
    assert queue.ended == [(1, False), (2, True)]


def test_a_newer_version_s_job_is_left_to_it() -> None:
    queue = Queue("unheard of", "quick")

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        while not queue.ended:
            await a_moment()
        bench.stopping.set()

    play(queue, scene)
    assert [job.kind for job in queue.waiting] == ["unheard of"]


def test_a_stopped_worker_finishes_its_job_and_takes_no_other() -> None:
    queue = Queue("slow", "quick")

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        await bench.begun.wait()
        bench.stopping.set()
        await a_moment()
        assert not working.done()
        bench.go.set()

    play(queue, scene)
    assert queue.ended == [(1, True)]
    assert len(queue.waiting) == 1
    assert queue.closed


def test_a_worker_waits_and_is_not_ready_while_another_works() -> None:
    queue = Queue("quick")
    queue.another_works = True

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        await a_moment()
        assert queue.ended == []
        assert await bench.ready() == (503, ["another worker has the lock"])
        queue.waiting.append(Job(2, 2, "slow", {}))
        queue.another_works = False
        await bench.begun.wait()
        assert await bench.ready() == (200, [])
        bench.stopping.set()
        bench.go.set()

    play(queue, scene)
    assert queue.ended == [(1, True), (2, True)]


def test_a_waiting_worker_can_be_stopped() -> None:
    queue = Queue("quick")
    queue.another_works = True

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        await a_moment()
        bench.stopping.set()

    play(queue, scene)
    assert queue.ended == []


def test_a_worker_without_a_database_waits_and_is_not_ready() -> None:
    queue = Queue("quick")

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        bench.reachable = False
        await a_moment()
        assert await bench.ready() == (503, ["postgres does not answer"])
        bench.reachable = True

    play(queue, scene)
    assert queue.ended == [(1, True)]


def test_a_connection_lost_during_a_job_ends_job_and_worker() -> None:
    """A lost connection loses the lock, so another worker may already do the same job."""
    queue = Queue("slow", "quick")
    benches: list[Bench] = []

    async def scene(bench: Bench, working: asyncio.Task[None]) -> None:
        benches.append(bench)
        await bench.begun.wait()
        queue.lost = True
        assert await bench.ready() == (503, ["postgres does not answer"])

    with pytest.raises(OperationalError):
        play(queue, scene)
    assert benches[0].cancelled
    assert queue.ended == []
    assert queue.closed


@pytest.mark.parametrize(
    ("status", "fails"),
    [(200, False), (403, False), (429, True), (502, True)],
    ids=["sent", "blocked", "later", "down"],
)
def test_a_message_is_sent_again_unless_telegram_accepted_or_refused_it(status: int, fails: bool) -> None:  # noqa: FBT001
    sent: list[object] = []

    class Http:
        def post(self, url: str, *, json: object) -> "Http":
            sent.append((url, json))
            return self

        async def __aenter__(self) -> SimpleNamespace:
            return SimpleNamespace(status=status)

        async def __aexit__(self, *_: object) -> None: ...

    settings = read_settings(
        {
            "ENVIRONMENT": "lab",
            "DATABASE_URL": "postgresql://bot:pw@postgres/market",
            "REDIS_URL": "redis://:pw@redis/0",
            "TELEGRAM_BOT_TOKEN": "1:token",
            "TELEGRAM_WEBHOOK_SECRET": "right",
            "TELEGRAM_API_URL": "http://telegram",
        }
    )
    notify = effects(settings, cast("ClientSession", Http()))["notify"]

    async def send() -> bool:
        try:
            await notify({"chat": 7, "text": "Reserved"})
        except OSError:
            return True
        return False

    assert asyncio.run(send()) == fails
    assert sent == [("http://telegram/bot1:token/sendMessage", {"chat_id": 7, "text": "Reserved"})]


def test_the_worker_starts_without_slow_imports() -> None:
    """The start must be fast, because a release waits for it."""
    program = "import sys, marketplace_bot.cli, marketplace_bot.worker; print('aiogram' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=BOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False\n"
