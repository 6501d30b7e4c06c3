"""Watches a release after its flip, while the former release still runs.

The watch fails if the new release is worse than the former release.
"""

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stackctl.app.stack import POLL_SECONDS, PROGRESS_SECONDS, Stack
from stackctl.app.telegram import Telegram
from stackctl.core.errors import FailedError

# The watch fails if there are at least FEWEST_ERRORS errors, and if the share of errors has grown by more than RISE.
FEWEST_ERRORS = 3
RISE = 0.05
NOT_READY_LOOKS = 3
TELEGRAM_EVERY = 1.0
LOOK_EVERY = 1.0
# A complaint within this many seconds may repeat an earlier complaint, because Telegram retries after at most 120 s.
TELEGRAM_REPEATS = 300
BEFORE_BYTES = 256 << 10


@dataclass(frozen=True)
class Tally:
    """The number of answers from the app in nginx's log, and how many of these answers are errors."""

    all: int
    errors: int
    """The answers whose status was 5xx."""

    @property
    def share(self) -> float:
        return self.errors / self.all if self.all else 0.0

    def __str__(self) -> str:
        return f"{self.errors} of {self.all} answers were 5xx" if self.all else "there were no requests"


@dataclass(frozen=True)
class Mark:
    """A position in nginx's log that separates earlier answers from later answers.

    If the log is rotated, the later answers start at the beginning of the new file.
    """

    path: Path
    inode: int
    offset: int

    @classmethod
    def now(cls, path: Path) -> "Mark":
        try:
            at = path.stat()
        except FileNotFoundError:  # there is no log if nginx is on another host
            return cls(path, 0, 0)
        return cls(path, at.st_ino, at.st_size)

    def before(self) -> Tally:
        """Return the tally of the answers just before the mark."""
        return self._tally(max(0, self.offset - BEFORE_BYTES), self.offset, 0.0)

    def since(self, moment: float) -> Tally:
        """Return the tally of requests that began after this moment. Earlier requests went to the former colour."""
        try:
            rotated = self.path.stat().st_ino != self.inode
        except FileNotFoundError:
            return Tally(0, 0)
        return self._tally(0 if rotated else self.offset, None, moment)

    def _tally(self, start: int, end: int | None, began_after: float) -> Tally:
        try:
            with self.path.open("rb") as log:
                log.seek(start)
                content = log.read() if end is None else log.read(end - start)
        except FileNotFoundError:
            content = b""
        statuses = list(_answers(content, began_after))
        return Tally(len(statuses), sum(status >= 500 for status in statuses))


@dataclass(frozen=True)
class Flip:
    """The position in nginx's log, the time and Telegram's last complaint, noted just before a flip."""

    mark: Mark
    at: float
    """The time of the flip in seconds since the epoch. nginx writes its log by the same clock."""
    monotonic: float
    complaint: int | None
    """The time of Telegram's last complaint, by Telegram's clock: 0 without one, None if Telegram did not answer."""

    @classmethod
    def now(cls, stack: Stack, telegram: Telegram | None) -> "Flip":
        machine, complaint = stack.machine, _complaint(telegram)[0] if telegram else None
        return cls(Mark.now(stack.paths.access_log), machine.now().timestamp(), machine.monotonic(), complaint)


def watch(
    stack: Stack,
    colour: str,
    telegram: Telegram | None,
    flip: Flip,
    failing: Callable[[], Mapping[str, str]] = dict,
) -> str:
    """Watch the release for the declared time.

    Raise FailedError as soon as the release is worse than the former release.

    `failing` returns the public paths that fail in the new colour, each with a description of the failure.
    """
    return _Watch(stack, colour, telegram, flip, failing).run()


class _Watch:
    def __init__(
        self,
        stack: Stack,
        colour: str,
        telegram: Telegram | None,
        flip: Flip,
        failing: Callable[[], Mapping[str, str]],
    ) -> None:
        self.stack, self.colour, self.telegram, self.flip, self.failing = stack, colour, telegram, flip, failing
        self.before, self.began = flip.mark.before(), stack.machine.monotonic()
        self.told = self.asked = self.began
        self.looked = self.began - LOOK_EVERY
        self.not_ready = 0
        self.maintenance = False
        self.failures = Counter[str]()

    def run(self) -> str:
        machine, seconds = self.stack.machine, self.stack.config.watch
        while (now := machine.monotonic()) - self.began < seconds:
            tally = self._check_answers()
            self._check_containers()
            self._check_ready()
            self._check_paths(now)
            self._check_telegram(now)
            if now - self.told >= PROGRESS_SECONDS:
                self.stack.log.emit("watch", "progress", f"{tally} in the first {now - self.began:.0f} of {seconds} s")
                self.told = now
            machine.sleep(POLL_SECONDS)
        if self.telegram and not self.maintenance:
            _ask_telegram(self.telegram, self.flip)
        seen = self.flip.mark.since(self.flip.at)
        return (
            str(seen)
            if seen.all
            else "no request came in, so only stackctl's own requests tested the release. Next: try the app yourself"
        )

    def _check_answers(self) -> Tally:
        tally = self.flip.mark.since(self.flip.at)
        if risen(self.before, tally):
            raise FailedError(f"since the flip: {tally}; before the flip: {self.before}")
        return tally

    def _check_containers(self) -> None:
        for container in self.stack.containers(self.colour):
            if container.end:
                raise FailedError(container.end)

    def _check_ready(self) -> None:
        self.not_ready = 0 if _ready(self.stack, self.colour) else self.not_ready + 1
        if self.not_ready >= NOT_READY_LOOKS:
            raise FailedError(f"{self.stack.config.ready_path} no longer answers 200")

    def _check_paths(self, now: float) -> None:
        if now - self.looked < LOOK_EVERY:
            return
        found, self.looked = self.failing(), now
        self.failures = Counter({path: self.failures[path] + 1 for path in found})
        if lasting := [found[path] for path, times in self.failures.items() if times >= NOT_READY_LOOKS]:
            raise FailedError(f"stackctl's own request failed: {lasting[0]}")

    def _check_telegram(self, now: float) -> None:
        # During maintenance, nginx refuses Telegram's updates, which is not the release's fault.
        self.maintenance = self.maintenance or self.stack.paths.maintenance.exists()
        if self.telegram and not self.maintenance and now - self.asked >= TELEGRAM_EVERY:
            _ask_telegram(self.telegram, self.flip)
            self.asked = now


def risen(before: Tally, since: Tally) -> bool:
    return since.errors >= FEWEST_ERRORS and since.share > before.share + RISE


def _ready(stack: Stack, colour: str) -> bool:
    try:
        return stack.machine.request_over_socket(stack.paths.socket(colour), stack.config.ready_path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _ask_telegram(telegram: Telegram, flip: Flip) -> None:
    """Raise FailedError if Telegram has a new complaint.

    A complaint that may only repeat an earlier complaint is ignored.
    """
    date, message = _complaint(telegram)
    if date is not None and flip.complaint is not None and date > flip.complaint + TELEGRAM_REPEATS:
        raise FailedError(f"Telegram reports an error: {message}")


def _complaint(telegram: Telegram) -> tuple[int | None, str]:
    try:
        info = telegram.info()
    except FailedError:
        return None, ""  # the release is not at fault if Telegram does not answer
    return info.error_at, info.error


def _answers(content: bytes, began_after: float) -> Iterator[int]:
    """Yield the status of each request that reached the app and began after `began_after`."""
    for line in content.splitlines():
        try:
            answer = json.loads(line)
            if answer["upstream_status"] and answer["msec"] - answer["request_time"] >= began_after:
                yield int(answer["status"])
        except (ValueError, KeyError, TypeError):
            continue  # skip a line that is cut off at the start or the end of the text
