"""Attacks on the lab from `neighbour`: `make attack`. What each got, what it gets with the defence out, who was served.

A test takes `attacker`, `serving` and `result`: it attacks, `for _ in serving.attacks()`; it attacks again under
`serving.defence_out()`, having taken the defence out, and puts it back; and says `result("slow clients", got="…",
control="…")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from tests.support.environment import Environment
from tests.support.load import Running, Tally, lab_target, load

AT_PEACE, ATTACKED, DEFENCE_OUT = "at peace", "attacked", "defence out"
FEWEST = 20
"""Requests that the bot answers during an attack, at least: fewer would show nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table; `served` is how many requests the bot answered meanwhile, its defence in place."""

    attack: str
    got: str
    control: str
    served: str


ROWS = pytest.StashKey[list[Row]]()


@dataclass(frozen=True)
class Serving:
    """The bot, asked all the while by clients at the gateway, which is where Telegram's requests come from."""

    running: Running

    def attacks(self) -> Iterator[None]:
        """Attack at least once, and again until the bot was asked often enough: some attacks are over at once."""
        enough = len(self._attacked.requests) + FEWEST
        self.running.phase(ATTACKED)
        while len(self._attacked.requests) < enough:
            assert not self.running.ended, "the load ended"
            yield
        self.running.phase(AT_PEACE)

    @contextmanager
    def defence_out(self) -> Iterator[None]:
        """Requests that begin in here may be lost: the attack is meant to succeed."""
        self.running.phase(DEFENCE_OUT)
        try:
            yield
        finally:
            self.running.phase(AT_PEACE)

    @property
    def served(self) -> int:
        """Requests that were answered while the droplet was attacked."""
        return len(self._attacked.requests) - len(self._attacked.lost)

    @property
    def defended(self) -> Tally:
        """Of all the time with the defence in place."""
        return Tally([request for request in self.running.tally.requests if request.phase != DEFENCE_OUT])

    @property
    def _attacked(self) -> Tally:
        return self.running.tally.of(ATTACKED)


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Environment) -> None:
    """Nobody else is attacked."""


@pytest.fixture(scope="session")
def attacker(lab: Environment) -> Host:
    """Another customer's machine on the droplet's network, as root."""
    return lab.outside


@pytest.fixture
def serving(lab: Environment) -> Iterator[Serving]:
    with load(lab_target(lab), clients=4, rate=20) as running:
        running.phase(AT_PEACE)
        one = Serving(running)
        yield one
    lost = one.defended.lost
    assert not lost, f"the bot lost {len(lost)} of {len(one.defended.requests)}: {one.defended.outcomes}"


@pytest.fixture
def result(request: pytest.FixtureRequest, serving: Serving) -> Callable[..., None]:
    """Keeps a line for the table that is printed at the end: the attack, what it got, what it gets undefended."""

    def keep(attack: str, *, got: str, control: str) -> None:
        assert serving.served >= FEWEST, "the bot was not asked while it was attacked"
        request.config.stash.setdefault(ROWS, []).append(Row(attack, got, control, f"{serving.served} requests"))

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("attacks")
        for row in (Row("attack", "got", "with the defence out", "the bot answered"), *rows):
            terminalreporter.write_line(f"{row.attack:<42} {row.got:<28} {row.control:<28} {row.served}")
