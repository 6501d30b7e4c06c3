"""Audits by programs and baselines that others wrote, which are called judges. `make audit` runs them.

A table at the end shows each judge's figure, its goal and the waivers. A test of a judge passes the judge's complaints
to the fixture `verdict`. A test of a baseline's control uses the fixture `control`. At its end, a judge's test removes
everything that the judge needed on the droplet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pytest

from tests.support.environment import Environment
from tests.system.audit.verdicts import Row, objections, waived


@dataclass
class Book:
    """The findings of this run."""

    rows: list[Row] = field(default_factory=list)
    controls: dict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))
    """For each baseline and number, True if the control holds or is waived."""


BOOK = pytest.StashKey[Book]()
Verdict = Callable[..., None]
Control = Callable[[str, str, str], None]


@pytest.fixture(scope="session", autouse=True)
def _there(request: pytest.FixtureRequest, env: Environment) -> None:
    if env.name == "lab":
        request.getfixturevalue("lab")


@pytest.fixture(scope="session")
def book(pytestconfig: pytest.Config) -> Book:
    return pytestconfig.stash.setdefault(BOOK, Book())


@pytest.fixture(scope="session")
def verdict(book: Book, env: Environment) -> Verdict:
    """Return a function that adds a line to the table, and fails the test for a complaint without a waiver."""

    def give(judge: str, complaints: Collection[str], *, figure: str, goal: str) -> None:
        known = waived(judge, env.name)
        book.rows.append(Row(judge, figure, goal, len(known)))
        if found := objections(complaints, known):
            pytest.fail(f"{judge}: " + "; ".join(found), pytrace=False)

    return give


@pytest.fixture(scope="session")
def control(book: Book, env: Environment) -> Control:
    """Return a function that records a baseline's control. `complaint` is empty if the control holds."""

    def judge(baseline: str, number: str, complaint: str) -> None:
        known = waived(baseline, env.name) & {number}
        found = objections({number} if complaint else set(), known)
        book.controls[baseline][number] = not found and book.controls[baseline].get(number, True)
        if found:
            pytest.fail(f"{baseline} {'; '.join(found)}: {complaint}", pytrace=False)

    return judge


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (book := config.stash.get(BOOK, None)) is None:
        return
    env = config.getoption("--env")
    rows = [(row.judge, row.figure, row.goal, str(row.waived or "")) for row in book.rows]
    for baseline, outcomes in sorted(book.controls.items()):
        known = len(waived(baseline, env))
        figure = f"{sum(outcomes.values()) - known} of {len(outcomes)} hold"
        rows.append((baseline, figure, "all, or waived", str(known or "")))
    terminalreporter.section("audit")
    for judge, figure, goal, number in (("judge", "figure", "goal", "waived"), *rows):
        terminalreporter.write_line(f"{judge:<26} {figure:<44} {goal:<34} {number}")
    terminalreporter.write_line("What is waived, and why: tests/system/audit/waivers.toml")
