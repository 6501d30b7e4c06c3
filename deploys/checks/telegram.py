"""Asks Telegram whose the token is that the env file declares: a rotation's proof.

From the droplet, which is where it will be used.
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
        name="Ask Telegram whose the new token is",
        # On standard input, as the token is part of the address.
        commands=["curl --silent --show-error --fail-with-body --max-time 20 --config -"],
        _stdin=f'url = "{api}/bot{token}/getMe"',
    )
