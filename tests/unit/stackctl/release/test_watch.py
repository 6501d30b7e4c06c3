"""After the flip, the watch sees errors, ended containers, missing readiness and Telegram's complaints."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stackctl.app.telegram import Telegram
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from stackctl.release import watch
from stackctl.release.watch import TELEGRAM_REPEATS, Flip
from tests.support.fakes.droplet import ENVIRONMENT, Droplet
from tests.support.watched import NOBODY, Watched, flip, log, stack, watched


@pytest.fixture
def live(tmp_path: Path) -> Watched:
    return watched(tmp_path)


def look(live: Watched, since: Flip | None = None, **after: Any) -> str:
    """Watch the live colour from this moment."""
    since = since or flip(live)
    live.calls.clear()
    for name, value in after.items():
        setattr(live, name, value)
    return watch.watch(stack(live), "blue", Telegram(live, ENVIRONMENT), since)


def test_the_watch_lasts_as_long_as_declared(live: Watched) -> None:
    began = live.seconds
    live.answers = [[200], [200, 404], [500, 500]]
    assert look(live) == "2 of 5 answers were 5xx"
    assert 3 <= live.seconds - began < 4


def test_a_rise_of_errors_ends_the_watch(live: Watched) -> None:
    live.answers = [[200], [502, 502, 502]]
    began = live.seconds
    with pytest.raises(FailedError, match="since the flip: 3 of 4 answers were 5xx; before the flip: 0 of 20"):
        look(live)
    assert live.seconds - began < 2


def test_errors_that_were_there_before_are_no_rise(live: Watched) -> None:
    log(live.paths.access_log, *[500] * 80)
    live.answers = [[500, 500, 500, 500, 200]]
    assert look(live) == "4 of 5 answers were 5xx"


def test_requests_that_the_old_colour_began_do_not_count_for_the_new_one(live: Watched) -> None:
    since = flip(live)
    log(live.paths.access_log, *[502] * 9, at=since.at + 1, took=1.5)
    assert look(live, since) == NOBODY
    log(live.paths.access_log, *[502] * 9, at=since.at + 1, took=0.5)
    with pytest.raises(FailedError, match="since the flip: 9 of 9"):
        look(live, since)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"restarts": 1}, "web ended by itself, and was started again"),
        ({"state": "exited", "exit_code": 137}, r"web ended by itself \(exit code 137\)"),
        ({"state": "restarting"}, "web ended by itself"),
    ],
)
def test_a_container_that_ends_is_reported(live: Watched, how: dict[str, Any], said: str) -> None:
    live.docker.of("bot-blue")[0].update(how)
    with pytest.raises(FailedError, match=said):
        look(live)


@pytest.mark.parametrize("statuses", [[503], [503, 503], [503, 503, 200, 503, 503]])
def test_not_ready_for_a_moment_is_no_fault(live: Watched, statuses: list[int]) -> None:
    look(live, request_over_socket=answering(live, statuses))


def test_not_ready_at_three_looks_is_one(live: Watched) -> None:
    with pytest.raises(FailedError, match="/ready no longer answers 200"):
        look(live, request_over_socket=answering(live, [200, 503, 200, 503, 503, 503]))


def answering(droplet: Droplet, statuses: Sequence[int]) -> Callable[..., tuple[int, bytes]]:
    left = list(statuses)

    def ask(*_arguments: object) -> tuple[int, bytes]:
        droplet.seconds += 0.01
        return (left.pop(0), b"") if left else (200, b"")

    return ask


def complaint(at: float) -> dict[str, Any]:
    return {"info": {"last_error_date": int(at), "last_error_message": "Wrong response: 500"}}


@pytest.mark.parametrize("clock", [-1000, 0, 1000])
@pytest.mark.parametrize("after", [0, 1, TELEGRAM_REPEATS])
def test_telegram_s_errors_from_before_the_flip_and_their_repetition_do_not_count(
    live: Watched, clock: float, after: float
) -> None:
    """Errors that Telegram first reported before the flip do not count, however much Telegram's clock differs."""
    before = live.now().timestamp() + clock
    live.later = complaint(before)
    look(live, later=complaint(before + after))
    assert live.ran("telegram getWebhookInfo")


@pytest.mark.parametrize("clock", [-1000, 0, 1000])
def test_a_newer_complaint_is_one(live: Watched, clock: float) -> None:
    before = live.now().timestamp() + clock
    live.later = complaint(before)
    with pytest.raises(FailedError, match="Telegram reports an error: Wrong response: 500"):
        look(live, later=complaint(before + TELEGRAM_REPEATS + 1))


def test_the_first_complaint_of_all_is_one(live: Watched) -> None:
    began = live.seconds
    with pytest.raises(FailedError, match="Telegram reports an error: Wrong response: 500"):
        look(live, later=complaint(live.now().timestamp() - 1))
    assert live.seconds - began < 2


@pytest.mark.parametrize(("seconds", "times"), [(1, 1), (3, 3), (5, 5)])
def test_telegram_is_asked_each_second_and_at_the_end(live: Watched, seconds: int, times: int) -> None:
    live.paths.config.write_text(json.dumps(json.loads(live.paths.config.read_text()) | {"watch": seconds}))
    look(live)
    assert live.calls[-1] == ["telegram", "getWebhookInfo"]
    assert len(live.ran("telegram")) == times


def test_a_telegram_that_does_not_answer_is_no_fault(live: Watched) -> None:
    look(live, failing={"telegram": Result(1)})
    assert live.ran("telegram")


def test_nginx_s_refusals_in_maintenance_do_not_count_against_the_release(live: Watched) -> None:
    live.paths.maintenance.touch()
    refused = partial(log, live.paths.access_log, *[503] * 9, at=live.now().timestamp() + 9, reached_the_app=False)
    said = look(live, meanwhile=[refused], later=complaint(live.now().timestamp()))
    assert said == NOBODY


@pytest.mark.parametrize("at", [0, 2])
def test_maintenance_at_any_moment_of_the_watch_silences_telegram(live: Watched, at: int) -> None:
    """If maintenance was on at any time of the watch, the watch ignores Telegram's complaints until the watch ends."""
    flag = live.paths.maintenance

    def complain() -> None:
        flag.unlink()
        live.later = complaint(live.now().timestamp())

    look(live, meanwhile=[*[lambda: None] * at, flag.touch, complain])
    assert not flag.exists()
    assert len(live.ran("telegram")) == 0
    with pytest.raises(FailedError, match="Telegram reports an error"):
        look(live, replace(flip(live), complaint=0))


def test_errors_of_the_release_are_reported_in_maintenance_too(live: Watched) -> None:
    live.paths.maintenance.touch()
    with pytest.raises(FailedError, match="/ready no longer answers 200"):
        look(live, app={"ready": 503})
    live.docker.of("bot-blue")[0].update(restarts=1)
    with pytest.raises(FailedError, match="web ended by itself"):
        look(live, app={"ready": 200})
