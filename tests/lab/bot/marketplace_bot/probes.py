"""GET /ready shows whether `web` can receive traffic, and GET /health shows the state of `web`."""

import asyncio
import time
from collections.abc import Awaitable
from typing import NamedTuple

import structlog
from aiohttp import web
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from marketplace_bot import monitoring, schema

log = structlog.get_logger(__name__)

ANSWER_WITHIN = 2.0  # seconds within which a dependency must answer


class Findings(NamedTuple):
    """The dependencies that answered, and the revisions that the database lacks."""

    up: dict[str, bool]
    pending: list[str]


class Probes:
    """The handlers. The uptime starts at the creation of this object."""

    def __init__(self, engine: AsyncEngine, redis: Redis, version: str) -> None:
        self._engine = engine
        self._redis = redis
        self._version = version
        self._revisions = schema.revisions()
        self._started = time.monotonic()

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 if an update would be accepted, otherwise 503 with the reasons."""
        up, pending = await self._look()
        reasons = [f"{name} does not answer" for name in up if not up[name]]
        if pending:
            reasons.append(f"the schema lacks {', '.join(pending)}: run migrate")
        return monitoring.readiness(reasons)

    async def health(self, _: web.Request) -> web.Response:
        """Answer 200 "healthy" or 503 "degraded". The uptime is in seconds, and a dependency is "up" or "down"."""
        up = (await self._look()).up
        healthy = all(up.values())
        report = {
            "status": "healthy" if healthy else "degraded",
            "version": self._version,
            "uptime": round(time.monotonic() - self._started, 1),
            "dependencies": {name: "up" if up[name] else "down" for name in up},
        }
        return web.json_response(report, status=200 if healthy else 503)

    async def _look(self) -> Findings:
        pending: list[str] = []

        async def postgres() -> None:
            async with self._engine.connect() as connection:
                current = await connection.run_sync(schema.current_revision)
            pending.extend(revision["revision"] for revision in schema.pending(self._revisions, current))

        async def redis() -> None:
            await self._redis.ping()

        up = await asyncio.gather(_answers("postgres", postgres()), _answers("redis", redis()))
        return Findings(dict(zip(("postgres", "redis"), up, strict=True)), pending)


async def _answers(name: str, check: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(check, ANSWER_WITHIN)
    except Exception as error:
        log.warning("dependency does not answer", dependency=name, error=f"{type(error).__name__}: {error}")
        return False
    return True
