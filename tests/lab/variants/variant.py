"""The variants of the bot. Each branch of this file is one way in which a release can differ. Most variants are broken.

broken-version, broken-label and deaf-broken report a wrong version through the Dockerfile's arguments. 1.2.0, 1.3.0,
broken-migration and broken-hang have one more revision. All other differences are in this file.
"""

import atexit
import json
import os
import sys
import urllib.request
from unittest.mock import patch

from aiohttp import web
from marketplace_bot import cli, db

VARIANT, COMMAND = os.environ["VARIANT"], sys.argv[1]


async def unready(*_: object) -> web.Response:
    return web.json_response({"ready": False, "reasons": [VARIANT]}, status=503)


def refuse_updates(*, probes: bool) -> None:
    """Answer 500 to the updates with which a release probes, or to all other updates."""
    from marketplace_bot.webhook import Webhook  # noqa: PLC0415 -- takes seconds

    receive = Webhook.receive

    async def refusing(webhook: Webhook, request: web.Request) -> web.Response:
        is_probe = json.loads(await request.read()) == {"update_id": 0}
        return web.Response(status=500) if is_probe == probes else await receive(webhook, request)

    patch.object(Webhook, "receive", refusing).start()


def take_webhook_back() -> None:
    """Delete the webhook on shutdown, as many bots do."""
    bot = f"{os.environ['TELEGRAM_API_URL']}/bot{os.environ['TELEGRAM_BOT_TOKEN']}"
    urllib.request.urlopen(f"{bot}/deleteWebhook", timeout=5).read()  # noqa: S310 -- the lab's stand-in


match VARIANT, COMMAND:
    case ("broken-crash", "web") | ("broken-worker", "worker"):
        sys.exit(f"{VARIANT}: {COMMAND} exits at its start")
    case "broken-unready", "web":
        from marketplace_bot.probes import Probes

        patch.object(Probes, "ready", unready).start()
    case "broken-500", "web":
        refuse_updates(probes=False)
    case "broken-probe", "web":
        refuse_updates(probes=True)
    case "broken-trust", "web":
        from marketplace_bot.webhook import Webhook

        patch.object(Webhook, "_is_telegram", lambda *_: True).start()
    case ("deaf" | "deaf-broken", "web"):
        atexit.register(take_webhook_back)
    case (("1.2.0" | "1.3.0"), _):
        patch.object(db.SeenUpdate.__table__, "name", "updates").start()

sys.exit(cli.main())
