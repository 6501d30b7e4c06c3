"""Does the work that need not happen within a request. One worker runs at a time and does one job after another.

Each job runs at least once. A job's effect may occur twice if the worker is killed before it records the end.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import ClientSession, ClientTimeout, web
from prometheus_client import Counter
from psycopg import OperationalError

from marketplace_bot import monitoring
from marketplace_bot.jobs import Job, Jobs
from marketplace_bot.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_EVERY = 1.0  # seconds between two attempts
LOOK_EVERY = 0.2  # seconds between two checks for the lock or for a job
PING_EVERY = 1.0  # seconds between two checks for the lock during a job
ANSWER_WITHIN = 2.0  # seconds within which PostgreSQL must answer
SEND_WITHIN = 5.0  # seconds within which Telegram must accept a message

JOBS = Counter("bot_jobs", "Attempts at jobs, by what became of them", ["outcome"])

Payload = dict[str, Any]
Effect = Callable[[Payload], Awaitable[None]]


def serve(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, and finish the current job. Raise psycopg.Error if the lock is lost."""
    asyncio.run(_serve(settings))
    log.info("stopped")


async def _serve(settings: Settings) -> None:
    log.info("starting", version=settings.version, environment=settings.environment, port=monitoring.PORT)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    name = f"{settings.version} {socket.gethostname()}"
    async with ClientSession(timeout=ClientTimeout(SEND_WITHIN)) as http:
        worker = Worker(lambda: Jobs.connect(settings.database_url, name), effects(settings, http), stopping)
        app = web.Application()
        app.add_routes([*monitoring.routes(settings.version), web.get("/ready", worker.ready)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, monitoring.HOST, monitoring.PORT).start()
            await worker.work()
        finally:
            await runner.cleanup()


def effects(settings: Settings, http: ClientSession) -> dict[str, Effect]:
    """Return the effect of each kind of job."""

    async def notify(payload: Payload) -> None:
        """Send a message to a chat. If the chat refuses messages, drop the message."""
        url = f"{settings.telegram_api_url}/bot{settings.telegram_token}/sendMessage"
        async with http.post(url, json={"chat_id": payload["chat"], "text": payload["text"]}) as response:
            if response.status == 429 or response.status >= 500:
                raise OSError(f"Telegram answers {response.status}")
            if response.status != 200:
                log.warning("message refused", status=response.status)

    async def count(payload: Payload) -> None:
        """Take some time. Tests insert these jobs by the hundred and count them in the table."""
        await asyncio.sleep(payload.get("pause_ms", 0) / 1000)

    return {"notify": notify, "count": count}


class Worker:
    """The worker's loop, and the probe that shows whether it runs."""

    def __init__(
        self, connect: Callable[[], Awaitable[Jobs]], effects: dict[str, Effect], stopping: asyncio.Event
    ) -> None:
        self._connect = connect
        self._effects = effects
        self._stopping = stopping
        self._jobs: Jobs | None = None
        self._alone = False

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 if PostgreSQL answers and no other worker runs, otherwise 503 with the reasons."""
        reasons = [] if self._alone else ["another worker has the lock"]
        if not await self._answers():
            reasons = ["postgres does not answer"]
        return monitoring.readiness(reasons)

    async def work(self) -> None:
        """Wait for the database, then for the lock, then do jobs. Return when told to stop.

        A lost connection ends the worker. Docker starts a new worker, which has no state that could be outdated.
        """
        while self._jobs is None:
            try:
                self._jobs = await self._connect()
            except OperationalError as error:
                log.warning("no database yet", error=str(error))
                if await self._stopped_within(CONNECT_EVERY):
                    return
        try:
            await self._work(self._jobs)
        finally:
            await self._jobs.close()

    async def _work(self, jobs: Jobs) -> None:
        log.info("waiting to be the only worker")
        while not await jobs.lock():
            if await self._stopped_within(LOOK_EVERY):
                return
        self._alone = True
        log.info("at work")
        while not self._stopping.is_set():
            job = await jobs.take([*self._effects])
            if job:
                await self._do(jobs, job)
            else:
                await self._stopped_within(LOOK_EVERY)

    async def _do(self, jobs: Jobs, job: Job) -> None:
        effect = asyncio.ensure_future(self._effects[job.kind](job.payload))
        try:
            while not (await asyncio.wait([effect], timeout=PING_EVERY))[0]:
                await jobs.ping()
        finally:
            effect.cancel()  # Without the lock, another worker may already do the same job.
        error = effect.exception()
        await jobs.end(job, done=error is None)
        if error is None:
            log.info("job", id=job.id, kind=job.kind)
        else:
            log.warning("job failed, it will be tried again", id=job.id, kind=job.kind, error=repr(error))
        JOBS.labels("failed" if error else "done").inc()

    async def _answers(self) -> bool:
        if self._jobs is None:
            return False
        try:
            await asyncio.wait_for(self._jobs.ping(), ANSWER_WITHIN)
        except (OperationalError, TimeoutError):
            return False
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()
