"""Attacks on the lab from `neighbour`: `make attack`. What each got, what it gets with the defence out, who was served.

A test takes `attacker`, `serving` and `result`: it attacks; it attacks again under `serving.defence_out()`, having
taken the defence out, and puts it back; and says `result("slow clients", got="…", control="…")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from tests.places import Place
from tests.releases.load import Running, Tally, lab_target, load

DEFENDED, DEFENCE_OUT = "defended", "defence out"
FEWEST = 20
"""Requests of the bot's own during an attack, at least: fewer would show nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table; `served` is of the requests that Telegram's stand-in sent meanwhile."""

    attack: str
    got: str
    control: str
    served: str


ROWS = pytest.StashKey[list[Row]]()


@dataclass(frozen=True)
class Serving:
    """The bot, asked all the while by clients at the gateway, which is where Telegram's requests come from."""

    running: Running

    @contextmanager
    def defence_out(self) -> Iterator[None]:
        """Requests that begin in here may be lost: the attack is meant to succeed."""
        self.running.phase(DEFENCE_OUT)
        try:
            yield
        finally:
            self.running.phase(DEFENDED)

    @property
    def meanwhile(self) -> Tally:
        """Of the time with the defence in place."""
        return self.running.tally.of(DEFENDED)


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Place) -> None:
    """Nobody else is attacked."""


@pytest.fixture(scope="session")
def attacker(lab: Place) -> Host:
    """Another customer's machine on the droplet's network, as root."""
    return lab.outside


@pytest.fixture
def serving(lab: Place) -> Iterator[Serving]:
    with load(lab_target(lab), clients=4, rate=20) as running:
        running.phase(DEFENDED)
        one = Serving(running)
        yield one
        running.until(FEWEST)
    lost = one.meanwhile.lost
    assert not lost, f"the bot lost {len(lost)} of {len(one.meanwhile.requests)}: {one.meanwhile.outcomes}"


@pytest.fixture
def result(request: pytest.FixtureRequest, serving: Serving) -> Callable[..., None]:
    """Keeps a line for the table that is printed at the end: the attack, what it got, what it gets undefended."""

    def keep(attack: str, *, got: str, control: str) -> None:
        serving.running.until(FEWEST)
        meanwhile = serving.meanwhile
        served = f"{len(meanwhile.requests) - len(meanwhile.lost)} of {len(meanwhile.requests)}"
        request.config.stash.setdefault(ROWS, []).append(Row(attack, got, control, served))

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("attacks")
        for row in (Row("attack", "got", "with the defence out", "the bot answered"), *rows):
            terminalreporter.write_line(f"{row.attack:<40} {row.got:<28} {row.control:<28} {row.served}")
