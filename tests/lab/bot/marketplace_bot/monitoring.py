"""What web and worker both answer: GET /live and /metrics, and how /ready says no."""

from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

PORT = 8080
HOST = "0.0.0.0"  # noqa: S104 -- inside a container, on networks that are the platform's to guard

BUILD = Gauge("bot_build_info", "Always 1; the version is in the label", ["version"])


def routes(version: str) -> list[web.RouteDef]:
    """Return the routes, and tell the version from now on."""
    BUILD.labels(version).set(1)
    return [web.get("/live", _live), web.get("/metrics", _metrics)]


def readiness(reasons: Sequence[str]) -> web.Response:
    """Answer 200, or 503 with the reasons that speak against it."""
    return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


async def _live(_: web.Request) -> web.Response:
    """Answer 200 for as long as the event loop turns."""
    return web.json_response({"status": "alive"})


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
