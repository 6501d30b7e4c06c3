"""A droplet whose app answers requests while stackctl watches a release."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from string import Template

from stackctl.app.stack import Stack
from stackctl.app.telegram import Telegram
from stackctl.core import config
from stackctl.core.events import RunLog
from stackctl.core.paths import Paths
from stackctl.release.watch import Flip
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, converged, stackctl

TAG = "1.1.0"
NGINX = Path(__file__).parents[2] / "templates/nginx/nginx.conf.j2"
LINE = Template("".join(re.findall("'(.*)'", NGINX.read_text().partition("log_format")[2].partition(";")[0])))
"""A line as nginx writes it."""
NOBODY = "no request came in, so only stackctl's own requests tested the release. Next: try the app yourself"


@dataclass
class Watched(Droplet):
    """A droplet whose app answers through nginx while stackctl sleeps. Each sleep uses up one list of statuses."""

    answers: list[list[int]] = field(default_factory=list)
    meanwhile: list[Callable[[], object]] = field(default_factory=list)
    """The functions to call, one at each sleep."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        log(self.paths.access_log, *self.answers.pop(0) if self.answers else (), at=self.now().timestamp())
        if self.meanwhile:
            self.meanwhile.pop(0)()


def log(path: Path, *statuses: int, at: float = 0.0, took: float = 0.0, reached_the_app: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = dict.fromkeys(LINE.get_identifiers(), "x") | {"msec": f"{at:.3f}", "request_time": f"{took:.3f}"}
    with path.open("a") as file:
        for status in statuses:
            upstream = f"{status:03}" if reached_the_app else ""
            file.write(LINE.substitute(said, status=f"{status:03}", upstream_status=upstream) + "\n")


def stack(droplet: Droplet) -> Stack:
    paths = droplet.paths
    return Stack(paths, config.load(paths), droplet, RunLog(paths.history, "release", droplet, StringIO()))


def flip(live: Watched) -> Flip:
    return Flip.now(stack(live), Telegram(live, ENVIRONMENT))


def watched(tmp_path: Path) -> Watched:
    """Return a droplet whose live release, TAG, has answered 20 requests without an error."""
    droplet = converged(Watched(Paths("bot", tmp_path)))
    assert stackctl(droplet, "release", TAG)[0] == 0
    droplet.calls.clear()
    log(droplet.paths.access_log, *[200] * 20)
    return droplet
