"""The answers that `web` and `worker` share: GET /live, GET /metrics, and GET /ready with its reasons."""

from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

PORT = 8080
HOST = "0.0.0.0"  # noqa: S104 -- inside a container, on networks that are the platform's to guard

BUILD = Gauge("bot_build_info", "Always 1; the version is in the label", ["version"])


def routes(version: str) -> list[web.RouteDef]:
    """Return the routes /live and /metrics, and set the version that /metrics reports."""
    BUILD.labels(version).set(1)
    return [web.get("/live", _live), web.get("/metrics", _metrics)]


def readiness(reasons: Sequence[str]) -> web.Response:
    """Answer 503 with the reasons, or 200 if there are no reasons."""
    return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


async def _live(_: web.Request) -> web.Response:
    """Answer 200 as long as the event loop runs."""
    return web.json_response({"status": "alive"})


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
