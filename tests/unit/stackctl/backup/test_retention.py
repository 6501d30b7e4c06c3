"""The retention keeps the right backups, even if the clock was wrong."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stackctl.backup.manifest import Manifest
from stackctl.backup.retention import choose
from tests.support.manifests import NOON, made

LOCAL = (7, 0, 0)
OFFSITE = (7, 4, 6)


def nights(count: int) -> list[Manifest]:
    return [made(night, NOON + timedelta(days=night)) for night in range(1, count + 1)]


def kept(manifests: list[Manifest], rule: Sequence[int]) -> list[int]:
    """Return the numbers of the kept backups."""
    ids = choose(manifests, *rule)
    return sorted(one.sequence for one in manifests if one.id in ids)


def test_seven_nights_stay_here() -> None:
    assert kept(nights(30), LOCAL) == [24, 25, 26, 27, 28, 29, 30]
    assert kept(nights(3), LOCAL) == [1, 2, 3]
    assert kept([], LOCAL) == []


def test_a_year_keeps_days_weeks_and_months() -> None:
    """The first night is Monday 24 November 2025, and the 365th night is Monday 23 November 2026."""
    days = list(range(359, 366))
    weeks = [350, 357, 364, 365]  # Sundays, and the newest night of the current week
    # The last nights of months (30 June, 31 July, …), and the newest night of November.
    months = [219, 250, 281, 311, 342, 365]
    assert kept(nights(365), OFFSITE) == sorted({*days, *weeks, *months})


def test_pruning_each_night_keeps_what_pruning_once_keeps() -> None:
    left: list[Manifest] = []
    for one in nights(400):
        left.append(one)
        ids = choose(left, *OFFSITE)
        left = [known for known in left if known.id in ids]
    assert [one.sequence for one in left] == kept(nights(400), OFFSITE)


def test_the_newest_of_a_day_stays_after_the_newest_seven() -> None:
    twice = [made(number, NOON + timedelta(hours=12 * number)) for number in range(1, 41)]
    assert kept(twice, LOCAL) == [28, 30, 32, 34, 35, 36, 37, 38, 39, 40]


def test_a_backup_that_was_sent_twice_counts_once() -> None:
    of_a_day = [made(number, NOON + timedelta(minutes=number)) for number in range(1, 11)]
    assert {*kept([*of_a_day, *of_a_day[-3:]], LOCAL)} == {*range(4, 11)}


def test_an_unverified_backup_stays_until_a_newer_one_is_verified() -> None:
    unproven = [made(number, NOON + timedelta(days=number), verified=False) for number in range(1, 20)]
    assert kept(unproven, LOCAL) == list(range(1, 20))
    assert kept([*unproven, made(20)], LOCAL) == [20]
    assert kept([made(20), made(21, verified=False)], LOCAL) == [20, 21]


BACKUPS = st.lists(st.tuples(st.integers(-2000, 2000), st.booleans()), max_size=40)
RULES = st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(0, 7))


@given(BACKUPS, RULES)
def test_no_clock_deletes_one_of_the_newest_or_one_without_a_newer_verified_backup(
    told: list[tuple[int, bool]], rule: tuple[int, int, int]
) -> None:
    every = [
        made(number, NOON + timedelta(hours=hours), verified=proven) for number, (hours, proven) in enumerate(told)
    ]
    ids = choose(every, *rule)
    proven = [one for one in every if one.verified]
    assert ids <= {one.id for one in every}
    assert {one.id for one in proven[-max(rule[0], 1) :]} <= ids
    for one in every:
        if one.id not in ids:
            assert any(other.sequence > one.sequence for other in proven if other.id in ids)


JUMPS = {"weeks": (1, 4, 0, 7), "months": (1, 0, 6, 4 * 365 + 1)}
"""The retention rule and a number of days. A jump by a multiple of these days keeps weekdays or days of the month."""


@pytest.mark.parametrize("period", JUMPS)
@given(st.integers(1, 300), st.integers(1, 200), st.integers(1, 30), st.integers(-15, 15))
@example(1, 62, 1, 1)
def test_a_clock_that_jumped_and_came_back_costs_no_more_than_the_oldest(
    period: str, before: int, wrong: int, after: int, off: int
) -> None:
    """A week or month in which the clock jumped counts twice, because stackctl cannot notice the jump."""
    *rule, days = JUMPS[period]
    right = nights(before + wrong + after)
    jumped = [
        made(one.sequence, one.time + timedelta(days=days * off if before < one.sequence <= before + wrong else 0))
        for one in right
    ]
    assert set(kept(right, [max(most - 1, 0) for most in rule])) <= set(kept(jumped, rule))
    assert set(kept(right, LOCAL)) <= set(kept(jumped, LOCAL))
