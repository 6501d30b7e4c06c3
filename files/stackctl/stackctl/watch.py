"""The look at a release that has just gone live, while the one before it is still warm: is it worse?"""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import FailedError
from .stack import POLL_SECONDS, PROGRESS_SECONDS, Stack
from .telegram import Telegram

# A rise is told from a single mishap by both: so many answers, and so much more of all than before the flip.
FEWEST_ERRORS = 3
RISE = 0.05
NOT_READY_LOOKS = 3
TELEGRAM_EVERY = 2.0
BEFORE_BYTES = 256 << 10


@dataclass(frozen=True)
class Tally:
    """nginx's answers."""

    all: int
    errors: int
    """5xx."""

    @property
    def share(self) -> float:
        return self.errors / self.all if self.all else 0.0

    def __str__(self) -> str:
        return f"{self.errors} of {self.all} answers were 5xx"


@dataclass(frozen=True)
class Mark:
    """A place in nginx's log: what was answered before it, and since. A log that was rotated begins anew."""

    path: Path
    inode: int
    offset: int

    @classmethod
    def now(cls, path: Path) -> "Mark":
        try:
            at = path.stat()
        except FileNotFoundError:  # nginx is on another host
            return cls(path, 0, 0)
        return cls(path, at.st_ino, at.st_size)

    def before(self) -> Tally:
        return self._tally(max(0, self.offset - BEFORE_BYTES), self.offset)

    def since(self) -> Tally:
        try:
            rotated = self.path.stat().st_ino != self.inode
        except FileNotFoundError:
            return Tally(0, 0)
        return self._tally(0 if rotated else self.offset, None)

    def _tally(self, start: int, end: int | None) -> Tally:
        try:
            with self.path.open("rb") as log:
                log.seek(start)
                content = log.read() if end is None else log.read(end - start)
        except FileNotFoundError:
            content = b""
        statuses = list(_statuses(content))
        return Tally(len(statuses), sum(status >= 500 for status in statuses))


def watch(stack: Stack, colour: str, telegram: Telegram | None, mark: Mark, flipped: float) -> str:
    """Look for as long as it is declared. FailedError says what became worse. `flipped`: seconds since the epoch."""
    machine, config = stack.machine, stack.config
    before, began = mark.before(), machine.monotonic()
    told, asked, not_ready = began, began, 0
    while (now := machine.monotonic()) - began < config.watch:
        tally = mark.since()
        if risen(before, tally):
            raise FailedError(f"since the flip {tally}; before it {before}")
        for container in stack.containers(colour):
            if container.restarts or container.state != "running":
                raise FailedError(f"{container.service} ended by itself (exit code {container.exit_code})")
        not_ready = 0 if _ready(stack, colour) else not_ready + 1
        if not_ready >= NOT_READY_LOOKS:
            raise FailedError(f"{config.ready_path} is not ready any more")
        if telegram and now - asked >= TELEGRAM_EVERY:
            _ask_telegram(telegram, flipped)
            asked = now
        if now - told >= PROGRESS_SECONDS:
            stack.journal.tell("watch", "progress", f"{tally}, {now - began:.0f} of {config.watch} s")
            told = now
        machine.sleep(POLL_SECONDS)
    if telegram:
        _ask_telegram(telegram, flipped)
    return str(mark.since())


def risen(before: Tally, since: Tally) -> bool:
    return since.errors >= FEWEST_ERRORS and since.share > before.share + RISE


def _ready(stack: Stack, colour: str) -> bool:
    try:
        return stack.machine.ask(stack.paths.socket(colour), stack.config.ready_path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _ask_telegram(telegram: Telegram, flipped: float) -> None:
    try:
        info = telegram.info()
    except FailedError:
        return  # that Telegram can't be asked is no fault of the release's
    if info.get("last_error_date", 0) > flipped:
        raise FailedError(f"Telegram says: {info.get('last_error_message')}")


def _statuses(content: bytes) -> Iterator[int]:
    for line in content.splitlines():
        try:
            yield int(json.loads(line)["status"])
        except (ValueError, KeyError, TypeError):
            continue  # the first and the last line may be cut
