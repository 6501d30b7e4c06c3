"""The watch ignores a small rise in the share of errors."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.release.watch import Tally, risen

TALLIES = st.integers(0, 1000).flatmap(lambda every: st.builds(Tally, st.just(every), st.integers(0, every)))


@given(TALLIES, TALLIES)
def test_a_share_of_errors_that_is_not_higher_is_no_rise(before: Tally, since: Tally) -> None:
    assert since.share > before.share or not risen(before, since)


@given(TALLIES, st.integers(0, 1000), st.integers(0, 2))
def test_two_errors_are_a_mishap(before: Tally, well: int, errors: int) -> None:
    assert not risen(before, Tally(well + errors, errors))


@given(st.integers(0, 1000), st.integers(3, 1000))
def test_when_all_was_well_nothing_but_errors_is_a_rise(well: int, errors: int) -> None:
    assert risen(Tally(well, 0), Tally(errors, errors))


@given(TALLIES, TALLIES, st.data())
def test_more_errors_of_as_many_answers_make_it_no_better(before: Tally, since: Tally, data: st.DataObject) -> None:
    more = replace(since, errors=data.draw(st.integers(since.errors, since.all)))
    assert risen(before, more) or not risen(before, since)


@given(TALLIES, TALLIES, st.integers(1, 100))
def test_more_good_answers_make_it_no_worse(before: Tally, since: Tally, more: int) -> None:
    assert risen(before, since) or not risen(before, replace(since, all=since.all + more))


@pytest.mark.parametrize(
    ("before", "since", "expected"),
    [
        (Tally(0, 0), Tally(0, 0), False),
        (Tally(0, 0), Tally(3, 3), True),  # no client sent a request before the flip
        (Tally(1000, 0), Tally(60, 3), False),  # 5 more errors in 100 requests
        (Tally(1000, 0), Tally(59, 3), True),
        (Tally(100, 10), Tally(100, 15), False),
        (Tally(100, 10), Tally(100, 16), True),
        (Tally(100, 100), Tally(100, 100), False),  # as many errors as before
    ],
)
def test_a_rise_is_three_errors_and_five_in_a_hundred_more(before: Tally, since: Tally, *, expected: bool) -> None:
    assert risen(before, since) is expected
