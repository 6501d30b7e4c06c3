"""`make attack` attacks the lab from `neighbour`.

The report shows each attack's result with and without the defence, and how many requests the bot answered during the
attack.

A test uses the fixtures `attacker`, `serving` and `result`. First, the test attacks in a loop `for _ in
serving.attacks()`. After that, the test removes the defence, attacks again under `serving.defence_out()`, and restores
the defence. At the end the test calls `result("slow clients", got="…", control="…")`.
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
"""The fewest requests that the bot must answer during an attack. A smaller number would prove nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table of attacks.

    `served` is the number of requests that the bot answered while the defence was in place.
    """

    attack: str
    got: str
    control: str
    served: str


ROWS = pytest.StashKey[list[Row]]()


@dataclass(frozen=True)
class Serving:
    """The bot under a steady load from clients at the gateway. Telegram's requests also come from the gateway."""

    running: Running

    def attacks(self) -> Iterator[None]:
        """Repeat the attack until the bot has answered enough requests, because some attacks end immediately."""
        enough = len(self._attacked.requests) + FEWEST
        self.running.phase(ATTACKED)
        while len(self._attacked.requests) < enough:
            assert not self.running.ended, "the load ended"
            yield
        self.running.phase(AT_PEACE)

    @contextmanager
    def defence_out(self) -> Iterator[None]:
        """Mark requests that may be lost, because the attack is meant to succeed without the defence."""
        self.running.phase(DEFENCE_OUT)
        try:
            yield
        finally:
            self.running.phase(AT_PEACE)

    @property
    def served(self) -> int:
        """Return how many requests were answered while the droplet was attacked."""
        return len(self._attacked.requests) - len(self._attacked.lost)

    @property
    def defended(self) -> Tally:
        """Return all requests that were sent while the defence was in place."""
        return Tally([request for request in self.running.tally.requests if request.phase != DEFENCE_OUT])

    @property
    def _attacked(self) -> Tally:
        return self.running.tally.of(ATTACKED)


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab_alone(lab: Environment) -> None:
    """Require the lab. Attack no environment but the lab."""


@pytest.fixture(scope="session")
def attacker(lab: Environment) -> Host:
    """Return another customer's machine on the droplet's network, as root."""
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
    """Return a function that adds a line to the table at the end of the run.

    The function's arguments are the attack's name, the attack's result, and the result without the defence.
    """

    def keep(attack: str, *, got: str, control: str) -> None:
        assert serving.served >= FEWEST, "the load sent too few requests during the attack"
        request.config.stash.setdefault(ROWS, []).append(Row(attack, got, control, f"{serving.served} requests"))

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("attacks")
        for row in (Row("attack", "got", "with the defence out", "the bot answered"), *rows):
            terminalreporter.write_line(f"{row.attack:<42} {row.got:<28} {row.control:<28} {row.served}")
