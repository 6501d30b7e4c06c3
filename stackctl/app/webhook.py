"""Keeps Telegram's webhook on the live release.

Anyone with the bot's token can change the webhook. Many bots call deleteWebhook when they stop (aiogram's examples do),
so each verb that has stopped a container then asks Telegram for the webhook, and corrects a wrong webhook. `status`
also asks Telegram, because a colleague who tries out the same token takes the webhook away from the droplet.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from stackctl.app import app_env, state, telegram
from stackctl.app.stack import Stack
from stackctl.app.state import State, Webhook
from stackctl.app.telegram import Info, RejectedError, Telegram
from stackctl.core.config import Config
from stackctl.core.deadline import begin
from stackctl.core.errors import FailedError, StackError
from stackctl.core.machine import Machine
from stackctl.core.paths import Paths

LOOK_S = 3.0
"""status waits this long for Telegram, counted from the start of status."""
RECENT_S = 600
"""A failed delivery older than this no longer counts, because Telegram retries within minutes."""
MANY = 100
"""A bot that keeps up has fewer updates pending than this."""


def ensure(stack: Stack) -> str:
    """Set the webhook unless the current webhook fits the live release. Return a message. Keep pending updates.

    Raises StackError if the webhook was never set, and cannot be set now.
    """
    current = state.load(stack.paths)
    if stack.config.isolated:
        return "this droplet is isolated, so the webhook was not changed"
    live = _of_live(stack.paths, stack.config, current)
    if not live:
        return "the app does not use Telegram" if current.active else "no release yet"
    wanted, values = live
    bot = Telegram(stack.machine, values)
    if current.webhook == wanted:
        try:
            info = bot.info()
        except FailedError as error:
            return (
                f"the webhook was set earlier, but now Telegram can't be asked ({error}). "
                "Next: stackctl status, which asks again"
            )
        if not _fault(info, wanted):
            return "the webhook was already set"
    bot.set_webhook(wanted.url)
    state.save(stack.paths, replace(current, webhook=wanted))
    return "the webhook is set"


def mend(stack: Stack) -> str:
    """Call `ensure`, but return an error as text instead of raising the error, because the bot is live in any case."""
    try:
        return ensure(stack)
    except (StackError, OSError) as error:
        return f"the webhook could not be set ({error}). Next: stackctl status, which asks again"


def mend_and_tell(stack: Stack) -> None:
    """Repair the webhook, which a stopped container may have deleted, and emit the result."""
    if stack.config.tells_telegram:
        stack.log.emit("webhook", "progress", mend(stack))


@dataclass(frozen=True)
class Look:
    """Telegram's answer about the webhook."""

    wanted: Webhook | None = None
    """None if this droplet has no bot, or no live release."""
    info: Info | None = None
    silence: str = ""
    """Why Telegram did not answer. Empty after an answer."""
    rejected: bool = False
    """Whether Telegram does not know the bot's token."""

    @property
    def drift(self) -> list[str]:
        """The differences in the webhook that a release or a converge repairs."""
        fault = _fault(self.info, self.wanted) if self.info and self.wanted else None
        return [fault] if fault else []

    def problems(self, now: float) -> list[str]:
        """Return a line for each problem that Telegram reports.

        `now` is the droplet's time, which can be compared with times from Telegram: if the two clocks differed,
        Telegram would reject the droplet's certificate.
        """
        if self.rejected:
            return [f"the bot neither receives nor sends: {self.silence}. Next: set TELEGRAM_BOT_TOKEN, then make site"]
        if not self.info or self.drift:
            return []
        waiting = f"{self.info.pending} updates wait at Telegram"
        if self.info.pending and self.info.error_at > now - RECENT_S:
            return [f"{waiting}, which can't deliver them: {self.info.error}. Next: stackctl logs"]
        return [f"{waiting}, because the bot doesn't keep up. Next: stackctl logs"] if self.info.pending >= MANY else []

    @property
    def document(self) -> dict[str, Any] | None:
        """The section of `status --json` about the webhook, or None if Telegram is not asked."""
        if not self.wanted:
            return None
        said = {**asdict(self.info), "url": _host(self.info.url)} if self.info else {}
        return {"url": None, "pending": None, "error_at": None, "error": "", **said, "silence": self.silence}


def look(paths: Paths, config: Config, machine: Machine, current: State) -> Callable[[], Look]:
    """Send a request to Telegram, and return a function that waits for the answer.

    `status` runs its other checks before the call of this function.
    """
    try:
        live = _of_live(paths, config, current)
    except StackError:
        live = None  # the next verb that needs this app environment reports the error
    if not live:
        return Look
    wanted, values = live
    wait, until = begin(Telegram(machine, values).info), machine.monotonic() + LOOK_S

    def finish() -> Look:
        try:
            return Look(wanted, wait(until - machine.monotonic()))
        except (StackError, OSError) as error:
            return Look(wanted, None, str(error), isinstance(error, RejectedError))

    return finish


def _of_live(paths: Paths, config: Config, current: State) -> tuple[Webhook, Mapping[str, str]] | None:
    """Return the webhook that the live release needs, and the app environment of the live release."""
    path, release = config.webhook_path, current.release
    if not config.tells_telegram or not path or not release:
        return None
    values = app_env.load(paths.snapshot(release.id))
    try:
        return telegram.webhook(values, path), values
    except KeyError as missing:
        raise FailedError(f"the environment of {release.tag} has no {missing.args[0]}") from None


def _fault(info: Info, wanted: Webhook) -> str | None:
    if not info.url:
        return "somebody called deleteWebhook, so Telegram has no webhook and the bot receives nothing"
    if info.url != wanted.url:
        return f"Telegram sends updates to {_host(info.url)} instead of {wanted.url}"
    # Telegram does not show the secret, but the app checks the secret of each update.
    if info.pending and "401" in info.error:
        return f"the app rejects the secret that Telegram sends: {info.error}"
    return None


def _host(url: str) -> str:
    """Return the URL without the path, because the path may be a secret of another bot."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return telegram.shown(f"{scheme}://{host}/…" if rest else "") if url else ""
