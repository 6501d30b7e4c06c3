"""The watch counts the right answers in nginx's log."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.release import watch
from stackctl.release.watch import Mark, Tally
from tests.support.watched import log


@pytest.fixture
def access_log(tmp_path: Path) -> Path:
    return tmp_path / "log" / "access.log"


def test_a_mark_parts_what_was_answered_before_it_from_what_was_since(access_log: Path) -> None:
    log(access_log, 200, 502, 404, 500, 499)
    mark = Mark.now(access_log)
    assert (mark.before(), mark.since(0)) == (Tally(5, 2), Tally(0, 0))
    log(access_log, 200, 503)
    assert (mark.before(), mark.since(0)) == (Tally(5, 2), Tally(2, 1))
    assert str(mark.since(0)) == "1 of 2 answers were 5xx"


def test_nginx_s_own_answers_are_not_counted(access_log: Path) -> None:
    """The watch ignores answers from nginx itself, for example during maintenance or for an unknown host."""
    log(access_log, 200, 502)
    log(access_log, 503, 503, 404, reached_the_app=False)
    mark = Mark.now(access_log)
    log(access_log, 503, 503, 404, reached_the_app=False)
    log(access_log, 200, 502)
    assert (mark.before(), mark.since(0)) == (Tally(2, 1), Tally(2, 1))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20), st.integers(0, 20))
def test_requests_that_began_after_a_moment_count_since_then(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, int]], moment: int
) -> None:
    """A request counts only if the request began at or after the given moment.

    All lines that precede the mark count as requests before the flip.
    """
    path = tmp_path_factory.mktemp("log") / "access.log"
    for began, took in answers:
        log(path, 500, at=began + took, took=took)
    mark = Mark.now(path)
    for began, took in answers:
        log(path, 500, at=began + took, took=took)
    assert mark.before().all == len(answers)
    assert mark.since(moment).all == sum(began >= moment for began, _ in answers)


@given(st.lists(st.integers(100, 599), max_size=30), st.data())
def test_every_answer_is_on_one_side_of_the_mark(
    tmp_path_factory: pytest.TempPathFactory, statuses: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "access.log"
    cut = data.draw(st.integers(0, len(statuses)))
    log(path, *statuses[:cut])
    mark = Mark.now(path)
    log(path, *statuses[cut:])
    assert mark.before() == tally(statuses[:cut])
    assert mark.since(0) == tally(statuses[cut:])


def tally(statuses: Sequence[int]) -> Tally:
    return Tally(len(statuses), sum(status >= 500 for status in statuses))


def test_a_rotated_log_is_read_from_its_start(access_log: Path) -> None:
    """After a rotation, the new log is read from its start, even if it grows past the position of the mark."""
    log(access_log, 200, 200, 200)
    mark = Mark.now(access_log)
    log(access_log, 500)
    access_log.rename(access_log.with_suffix(".log.1"))
    assert mark.since(0) == Tally(0, 0)
    log(access_log, 502)
    assert mark.since(0) == Tally(1, 1)
    log(access_log, *[200] * 9)
    assert mark.since(0) == Tally(10, 1)


def test_a_log_that_comes_after_the_mark_is_all_since(access_log: Path) -> None:
    mark = Mark.now(access_log)
    assert (mark.before(), mark.since(0)) == (Tally(0, 0), Tally(0, 0))
    log(access_log, 200, 500)
    assert (mark.before(), mark.since(0)) == (Tally(0, 0), Tally(2, 1))


def test_only_the_newest_lines_before_the_mark_count(access_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last `BEFORE_BYTES` before the mark count. A line that begins before this limit is not counted."""
    log(access_log, *[500] * 50, 200, 200)
    line = len(access_log.read_bytes()) // 52
    monkeypatch.setattr(watch, "BEFORE_BYTES", 2 * line + line // 2)
    assert Mark.now(access_log).before() == Tally(2, 0)


def whole(**change: object) -> bytes:
    line = {"msec": 1.0, "status": 500, "upstream_status": "500", "request_time": 0.0}
    return json.dumps(line | change).encode()


@pytest.mark.parametrize(
    "torn",
    [
        *(b"", b"\n", b'{"ts":"now","sta', b'00,"path":"/"}', b"\xff\xfe", b"\0" * 40, b"500", b"[500]", b'"status"'),
        *(b'{"status":null}', b'{"status":"x"}', b'{"status":000}', b"{}", b'{"status":500}'),
        *(whole(status=None), whole(status="x"), whole(msec="now"), whole(msec=None), whole(request_time="-")),
        *(whole(upstream_status=None), whole(msec=[]), whole(status=[500])),
    ],
)
def test_a_torn_line_counts_for_nothing_and_spoils_no_other(access_log: Path, torn: bytes) -> None:
    log(access_log, 200)
    mark = Mark.now(access_log)
    for _ in range(2):
        with access_log.open("ab") as file:
            file.write(torn + b"\n")
        log(access_log, 500)
    assert mark.since(0) == Tally(2, 2)


def test_a_line_that_nginx_is_writing_counts_when_it_is_whole(access_log: Path) -> None:
    log(access_log, 200)
    mark = Mark.now(access_log)
    log(access_log, 500)
    written = access_log.read_bytes()
    os.truncate(access_log, len(written) - 5)
    assert mark.since(0) == Tally(0, 0)
    with access_log.open("ab") as file:
        file.write(written[-5:])
    assert mark.since(0) == Tally(1, 1)
