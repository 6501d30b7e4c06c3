"""Asks Telegram to which bot the token in the env file belongs. A rotation runs this deploy to check a new token.

The request comes from the droplet, because the droplet uses the token.
"""

from pyinfra import host
from pyinfra.operations import server

from deploys.config.settings import load_settings
from deploys.facts.stackctl import Status
from stackctl.app.telegram import DEFAULT_API

settings = load_settings(host.data.dict())
environment = settings.app_environment()
if (host.get_fact(Status) or {}).get("release"):
    api, token = environment.get("TELEGRAM_API_URL", DEFAULT_API), environment["TELEGRAM_BOT_TOKEN"]
    server.shell(
        name="Ask Telegram which bot the new token belongs to",
        # curl reads the URL from standard input, because the URL contains the token.
        commands=["curl --silent --show-error --fail-with-body --max-time 20 --config -"],
        _stdin=f'url = "{api}/bot{token}/getMe"',
    )
