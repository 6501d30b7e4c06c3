"""What a release is judged by: its answers to the probe, nginx's log while it is watched, the schema's revisions."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.app import schema
from stackctl.app.app_env import canonical
from stackctl.app.stack import Stack
from stackctl.app.state import Release, Revision
from stackctl.app.telegram import Telegram
from stackctl.core import config
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.events import RunLog
from stackctl.core.paths import Paths
from stackctl.core.program import Result
from stackctl.release import probe, watch
from stackctl.release.watch import TELEGRAM_REPEATS, Flip, Mark, Tally, risen
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, converged, installed, stackctl

TAG = "1.1.0"
NGINX = Path(__file__).parents[4] / "templates/nginx/nginx.conf.j2"
LINE = Template("".join(re.findall("'(.*)'", NGINX.read_text().partition("log_format")[2].partition(";")[0])))
"""As nginx writes it."""
NOBODY = "no request came in, so only our own checks were seen. Next: try the app yourself"
TALLIES = st.integers(0, 1000).flatmap(lambda every: st.builds(Tally, st.just(every), st.integers(0, every)))


@dataclass
class Watched(Droplet):
    """While stackctl sleeps, the app answers these through nginx, one lot after the other."""

    answers: list[list[int]] = field(default_factory=list)
    meanwhile: list[Callable[[], object]] = field(default_factory=list)
    """What happens at each look."""

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


@pytest.fixture
def live(tmp_path: Path) -> Watched:
    watched = converged(Watched(Paths("bot", tmp_path)))
    assert stackctl(watched, "release", TAG)[0] == 0
    watched.calls.clear()
    log(watched.paths.access_log, *[200] * 20)
    return watched


def stack(droplet: Droplet) -> Stack:
    paths = droplet.paths
    return Stack(paths, config.load(paths), droplet, RunLog(paths.history, "release", droplet, StringIO()))


def flip(live: Watched) -> Flip:
    return Flip.now(stack(live), Telegram(live, ENVIRONMENT))


def look(live: Watched, since: Flip | None = None, **after: Any) -> str:
    """Watch the live colour, from now on."""
    since = since or flip(live)
    live.calls.clear()
    for name, value in after.items():
        setattr(live, name, value)
    return watch.watch(stack(live), "blue", Telegram(live, ENVIRONMENT), since)


# which rise is one


@given(TALLIES, TALLIES)
def test_it_is_no_rise_when_the_share_is_not_higher(before: Tally, since: Tally) -> None:
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
        (Tally(0, 0), Tally(3, 3), True),  # nobody asked before the flip
        (Tally(1000, 0), Tally(60, 3), False),  # 5 in 100 more
        (Tally(1000, 0), Tally(59, 3), True),
        (Tally(100, 10), Tally(100, 15), False),
        (Tally(100, 10), Tally(100, 16), True),
        (Tally(100, 100), Tally(100, 100), False),  # it was as bad before
    ],
)
def test_a_rise_is_three_errors_and_five_in_a_hundred_more(before: Tally, since: Tally, *, expected: bool) -> None:
    assert risen(before, since) is expected


# nginx's log


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


def test_what_nginx_answers_by_itself_counts_on_neither_side(access_log: Path) -> None:
    """Under maintenance, say, or for an unknown host."""
    log(access_log, 200, 502)
    log(access_log, 503, 503, 404, reached_the_app=False)
    mark = Mark.now(access_log)
    log(access_log, 503, 503, 404, reached_the_app=False)
    log(access_log, 200, 502)
    assert (mark.before(), mark.since(0)) == (Tally(2, 1), Tally(2, 1))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20), st.integers(0, 20))
def test_what_counts_since_a_moment_is_what_began_then(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, int]], moment: int
) -> None:
    """However long it took; of what was before the mark all counts."""
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


def test_a_log_that_was_rotated_begins_anew(access_log: Path) -> None:
    """As logrotate does it: renamed, and a new file by the same name; be it longer than the mark or shorter."""
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


def test_of_what_was_before_only_the_newest_counts(access_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the line that is cut there doesn't."""
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


# watch


def test_it_is_watched_for_as_long_as_is_declared(live: Watched) -> None:
    began = live.seconds
    live.answers = [[200], [200, 404], [500, 500]]
    assert look(live) == "2 of 5 answers were 5xx"
    assert 3 <= live.seconds - began < 4


def test_a_rise_of_errors_ends_the_watch(live: Watched) -> None:
    live.answers = [[200], [502, 502, 502]]
    began = live.seconds
    with pytest.raises(FailedError, match="since the flip 3 of 4 answers were 5xx; before it 0 of 20"):
        look(live)
    assert live.seconds - began < 2


def test_errors_that_were_there_before_are_no_rise(live: Watched) -> None:
    log(live.paths.access_log, *[500] * 80)
    live.answers = [[500, 500, 500, 500, 200]]
    assert look(live) == "4 of 5 answers were 5xx"


def test_what_the_old_colour_had_begun_is_none_of_the_new_ones(live: Watched) -> None:
    since = flip(live)
    log(live.paths.access_log, *[502] * 9, at=since.at + 1, took=1.5)
    assert look(live, since) == NOBODY
    log(live.paths.access_log, *[502] * 9, at=since.at + 1, took=0.5)
    with pytest.raises(FailedError, match="since the flip 9 of 9"):
        look(live, since)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"restarts": 1}, "web ended by itself, and was started again"),
        ({"state": "exited", "exit_code": 137}, r"web ended by itself \(exit code 137\)"),
        ({"state": "restarting"}, "web ended by itself"),
    ],
)
def test_a_container_that_ends_is_told(live: Watched, how: dict[str, Any], said: str) -> None:
    live.docker.of("bot-blue")[0].update(how)
    with pytest.raises(FailedError, match=said):
        look(live)


@pytest.mark.parametrize("statuses", [[503], [503, 503], [503, 503, 200, 503, 503]])
def test_not_ready_for_a_moment_is_no_fault(live: Watched, statuses: list[int]) -> None:
    look(live, ask=answering(live, statuses))


def test_not_ready_at_three_looks_is_one(live: Watched) -> None:
    with pytest.raises(FailedError, match="/ready is no longer ready"):
        look(live, ask=answering(live, [200, 503, 200, 503, 503, 503]))


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
def test_what_telegram_complained_of_before_the_flip_is_no_fault_nor_that_it_tries_again(
    live: Watched, clock: float, after: float
) -> None:
    """Whatever its clock says, which isn't ours."""
    before = live.now().timestamp() + clock
    live.later = complaint(before)
    look(live, later=complaint(before + after))
    assert live.ran("telegram getWebhookInfo")


@pytest.mark.parametrize("clock", [-1000, 0, 1000])
def test_a_newer_complaint_is_one(live: Watched, clock: float) -> None:
    before = live.now().timestamp() + clock
    live.later = complaint(before)
    with pytest.raises(FailedError, match="Telegram says: Wrong response: 500"):
        look(live, later=complaint(before + TELEGRAM_REPEATS + 1))


def test_the_first_complaint_of_all_is_one(live: Watched) -> None:
    began = live.seconds
    with pytest.raises(FailedError, match="Telegram says: Wrong response: 500"):
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


def test_what_nginx_refuses_under_maintenance_is_no_fault_of_the_releases(live: Watched) -> None:
    live.paths.maintenance.touch()
    refused = partial(log, live.paths.access_log, *[503] * 9, at=live.now().timestamp() + 9, reached_the_app=False)
    said = look(live, meanwhile=[refused], later=complaint(live.now().timestamp()))
    assert said == NOBODY


@pytest.mark.parametrize("at", [0, 2])
def test_maintenance_at_any_moment_of_the_watch_silences_telegram(live: Watched, at: int) -> None:
    """It complains of it afterwards, too."""
    flag = live.paths.maintenance

    def complain() -> None:
        flag.unlink()
        live.later = complaint(live.now().timestamp())

    look(live, meanwhile=[*[lambda: None] * at, flag.touch, complain])
    assert not flag.exists()
    assert len(live.ran("telegram")) == 0
    with pytest.raises(FailedError, match="Telegram says"):
        look(live, replace(flip(live), complaint=0))


def test_what_the_release_does_badly_is_told_under_maintenance_too(live: Watched) -> None:
    live.paths.maintenance.touch()
    with pytest.raises(FailedError, match="/ready is no longer ready"):
        look(live, app={"ready": 503})
    live.docker.of("bot-blue")[0].update(restarts=1)
    with pytest.raises(FailedError, match="web ended by itself"):
        look(live, app={"ready": 200})


# probe


def probed(live: Watched, tag: str = TAG, values: dict[str, str] = ENVIRONMENT) -> str:
    return probe.probe(stack(live), "blue", tag, values)


def test_a_colour_that_is_what_was_asked_for(live: Watched) -> None:
    assert probed(live) == "ready, version 1.1.0, takes updates"
    assert [call for call in live.calls if call[0] in {"GET", "POST"}] == [
        ["GET", "blue.sock", "/ready"],
        ["GET", "blue.sock", "/health"],
        ["POST", "blue.sock", "/webhook"],
    ]


def test_the_update_has_nothing_in_it_and_brings_the_secret(live: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    real = live.ask

    def ask(*arguments: Any) -> tuple[int, bytes]:
        sent.append(arguments[2:])
        return real(*arguments)

    monkeypatch.setattr(live, "ask", ask)
    probed(live)
    headers = {"X-Telegram-Bot-Api-Secret-Token": "webhook-secret-1", "Content-Type": "application/json"}
    assert sent[-1] == (b'{"update_id": 0}', headers)


def test_it_is_waited_for_until_it_is_ready(live: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [503, 500, 200]
    real = live.ask

    def ask(*arguments: Any) -> tuple[int, bytes]:
        return (statuses.pop(0), b"") if statuses else real(*arguments)

    monkeypatch.setattr(live, "ask", ask)
    assert probed(live).startswith("ready")
    assert not statuses


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ({"ready": 503}, "/ready answers 503 after 20 s"),
        ({"ready": 302}, "/ready answers 302 after 20 s"),
        ({"ready": 200, "version": "0.9"}, "/health says version '0.9', not 1.1.0. Next: build the image again"),
        ({"ready": 200, "version": None}, "/health says version None"),
        ({"ready": 200, "update": 401}, "/webhook answers 401"),
        ({"ready": 200, "update": 302}, "/webhook answers 302"),
    ],
)
def test_what_it_does_not_answer_well_is_told(live: Watched, app: dict[str, Any], said: str) -> None:
    live.app = app
    with pytest.raises(FailedError, match=said):
        probed(live)


@pytest.mark.parametrize("update", [200, 202, 204])
def test_any_2xx_takes_an_update(live: Watched, update: int) -> None:
    live.app = {"ready": 200, "update": update}
    assert probed(live).endswith("takes updates")


def test_another_secret_is_not_taken(live: Watched) -> None:
    with pytest.raises(FailedError, match="/webhook answers 401") as failed:
        probed(live, values={**ENVIRONMENT, "TELEGRAM_WEBHOOK_SECRET": "another-secret"})
    assert "another-secret" not in str(failed.value)


@pytest.mark.parametrize("said", [b"", b"OK", b"[]", b"{}", b"7", b"\xff"])
def test_a_version_of_another_form_is_no_good_answer(
    live: Watched, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(live, "ask", lambda *_arguments: (200, said))
    with pytest.raises(FailedError, match="no good answer: "):
        probed(live)


def test_nobody_behind_the_socket_is_told(live: Watched) -> None:
    live.systemd.units.clear()
    with pytest.raises(FailedError, match="no good answer: /ready: nobody there after 20 s"):
        probed(live)


def test_what_the_app_does_not_have_is_not_asked_for(live: Watched) -> None:
    changed = json.loads(live.paths.config.read_text()) | {"version_path": None, "webhook_path": None}
    live.paths.config.write_text(json.dumps(changed))
    assert probed(live, "of no version") == "ready"
    assert [call[-1] for call in live.calls if call[0] in {"GET", "POST"}] == ["/ready"]


# the schema's revisions

KINDS = st.sampled_from(["expand", "contract"])
HISTORIES = st.lists(KINDS, max_size=8).map(
    lambda kinds: tuple(Revision(f"{number:04}", kind) for number, kind in enumerate(kinds))
)


def knowing(revision: str | None) -> Release:
    return Release("id", "1.0.0", "image", "e", revision, "now")


@given(HISTORIES)
def test_what_cuts_is_a_contract_whose_expand_may_be_among_what_comes(coming: tuple[Revision, ...]) -> None:
    pairs = [pair for pair in combinations(coming, 2) if [one.kind for one in pair] == ["expand", "contract"]]
    assert schema.first_breaking(coming) == (pairs[0][1] if pairs else None)


@given(HISTORIES.filter(len), st.data())
def test_a_release_is_barred_by_what_cuts_past_its_schema_and_by_nothing_else(
    applied: tuple[Revision, ...], data: st.DataObject
) -> None:
    known = data.draw(st.integers(0, len(applied) - 1))
    cut = schema.first_breaking(applied[known + 1 :])
    reason = schema.incompatibility(applied, knowing(applied[known].revision))
    assert (reason is None) == (cut is None)
    assert cut is None or f"({cut.revision} is a contract)" in (reason or "")


@given(HISTORIES)
def test_where_no_revision_is_known_nothing_is_barred(applied: tuple[Revision, ...]) -> None:
    assert schema.incompatibility((), knowing("0001")) is None
    for unknown in ("elsewhere", None):
        assert (schema.incompatibility(applied, knowing(unknown)) is None) == (not applied)


def test_why_it_is_barred() -> None:
    applied = tuple(Revision(f"000{n}", "contract" if n in {2, 4} else "expand") for n in range(5))
    assert schema.incompatibility(applied, knowing("0000")) == "the schema has moved past it (0002 is a contract)"
    assert schema.incompatibility(applied, knowing("0001")) == "the schema has moved past it (0004 is a contract)"
    assert schema.incompatibility(applied, knowing("0003")) is None  # it has the expand that 0004 ends
    assert schema.incompatibility(applied, knowing("0004")) is None
    assert schema.incompatibility(applied, knowing("x")) == "it is not known which revisions came after its x"


@given(HISTORIES, st.data())
def test_of_what_was_meant_the_database_has_what_it_came_to(every: tuple[Revision, ...], data: st.DataObject) -> None:
    """Killed or failed amid it, some were applied; the next try finds the rest pending, and each counts once."""
    done = data.draw(st.integers(0, len(every)))
    known = data.draw(st.integers(done, len(every)))
    meant = data.draw(st.integers(done, known))
    report = reported(every, done, known)
    assert schema.applied(every[:meant], report) == every[:done]
    assert (*schema.applied(every[:meant], report), *report.pending) == every[:known]


@given(HISTORIES.filter(len), st.data())
def test_an_older_image_that_lacks_revisions_takes_none_for_absent(
    every: tuple[Revision, ...], data: st.DataObject
) -> None:
    known = data.draw(st.integers(0, len(every) - 1))
    assert schema.applied(every, reported(every, len(every), known)) == every


def test_what_was_applied_by_other_means_hides_nothing() -> None:
    """The database is at a revision that no release brought; what is pending isn't there."""
    one, two = Revision("1", "expand"), Revision("2", "contract")
    assert schema.applied((one, two), schema.Report("elsewhere", "2", (two,))) == (one,)


def reported(every: tuple[Revision, ...], done: int, known: int) -> schema.Report:
    """By an image that knows the first of them, of a database that has the first ones."""
    names = [None, *(one.revision for one in every)]
    return schema.Report(names[done], names[known], every[done:known])


@given(HISTORIES, st.data())
def test_what_is_live_lives_with_all_that_comes_past_its_schema_or_it_is_refused(
    every: tuple[Revision, ...], data: st.DataObject
) -> None:
    """Be it pending, or applied by a release that was undone or rolled back."""
    done = data.draw(st.integers(0, len(every)))
    known = data.draw(st.integers(done, len(every)))
    report = reported(every, done, known)
    assert schema.release_conflict(every[:done], report, None) is None
    if done:
        at = data.draw(st.integers(0, done - 1))
        cut = schema.first_breaking(every[at + 1 : known])
        reason = schema.release_conflict(every[:done], report, knowing(every[at].revision))
        assert (reason is None) == (cut is None)
        assert cut is None or f"{cut.revision} is a contract, and 1.0.0 is older than its expand" in (reason or "")


@given(HISTORIES.filter(len), st.data())
def test_an_image_that_the_schema_has_moved_past_is_refused(every: tuple[Revision, ...], data: st.DataObject) -> None:
    known = data.draw(st.integers(1, len(every)))
    live = data.draw(st.none() | st.just(knowing(every[-1].revision)))
    cut = schema.first_breaking(every[known:])
    reason = schema.release_conflict(every, reported(every, len(every), known), live)
    assert (reason is None) == (cut is None)
    assert cut is None or f"the schema has moved past it ({cut.revision} is a contract)" in (reason or "")


def test_where_what_is_live_told_no_schema_nothing_is_in_its_way() -> None:
    every = (Revision("1", "expand"), Revision("2", "expand"))
    for unknown in ("elsewhere", None):
        assert schema.release_conflict(every[:1], reported(every, 1, 2), knowing(unknown)) is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "does not have the form of the app contract"),
        ("{", "does not have the form of the app contract"),
        ("[]", "does not have the form of the app contract"),
        ('{"current": null, "head": null}', "does not have the form of the app contract"),
        ('{"current": null, "head": null, "pending": null}', "does not have the form of the app contract"),
        (
            r'{"current": "\u001b]0;x\u0007", "head": "1", "pending": []}',
            "'\\\\x1b]0;x\\\\x07' is not the name of a revision",
        ),
        ('{"current": null, "head": "1; id", "pending": []}', "'1; id' is not the name of a revision"),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "-f", "kind": "expand"}]}',
            "'-f' is not the name of a revision",
        ),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "1"}]}',
            "does not have the form of the app contract",
        ),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "1", "kind": "both"}]}',
            "a revision's kind is both. Next: mark it expand or contract",
        ),
    ],
)
def test_a_report_of_another_form_is_told(live: Watched, said: str, why: str) -> None:
    live.failing = {"schema --json": Result(0, said)}
    with pytest.raises(FailedError, match=why):
        schema.read(stack(live), "bot-green", {}, knowing(None))


def test_a_report_is_the_last_line_of_what_the_image_says(live: Watched) -> None:
    report = {"current": "1", "head": "2", "pending": [{"revision": "2", "kind": "contract"}]}
    live.failing = {"schema --json": Result(0, f"a warning\n{json.dumps(report)}\n")}
    read = schema.read(stack(live), "bot-green", {}, knowing(None))
    assert (read.current, read.head, read.pending) == ("1", "2", (Revision("2", "contract"),))


# what nobody asks for, a release asks for itself


def site(droplet: Droplet, *public: str, **config: Any) -> None:
    """Say what is public besides Telegram's path."""
    declared = json.loads(droplet.paths.config.read_text())
    droplet.paths.config.write_text(json.dumps(declared | {"public_paths": public} | config))


def released(droplet: Droplet, tag: str) -> tuple[int, str]:
    code, shown = stackctl(droplet, "release", tag)
    return code, shown.splitlines()[-1] if code else shown


def test_a_release_that_nobody_asked_for_anything_says_so(live: Watched) -> None:
    assert f"watch      done {NOBODY}" in released(live, "1.2.0")[1]


def test_a_bot_that_fails_its_own_look_after_the_flip_is_undone(live: Watched) -> None:
    live.later = {"update": 500}
    code, said = released(live, "1.2.0")
    assert (code, "our own request failed: /webhook answers 500. 1.1.0 is still live" in said) == (1, True), said


def test_a_page_that_fails_after_the_flip_is_a_reason_as_well(live: Watched) -> None:
    site(live, "/", "/offers/")
    live.app |= {"pages": {"/": 200, "/offers/": 200}}
    live.later = {"pages": {"/": 200, "/offers/": 502}}
    code, said = released(live, "1.2.0")
    assert (code, "our own request failed: /offers/ answers 502" in said) == (1, True), said


def test_a_page_that_only_the_new_release_fails_is_found_before_the_flip(
    live: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(live, "/")
    ask = Droplet.ask

    def pages(droplet: Droplet, unix_socket: Path, target: str, *rest: Any) -> tuple[int, bytes]:
        if target == "/":
            return (500 if unix_socket.stem == "green" else 404), b""
        return ask(droplet, unix_socket, target, *rest)

    monkeypatch.setattr(Droplet, "ask", pages)
    code, said = released(live, "1.2.0")
    assert (code, "/ answers 500. 1.1.0 is still live" in said) == (1, True), said
    assert not live.ran("bot-worker --file")


def test_a_page_that_the_live_release_fails_as_well_is_no_reason(live: Watched) -> None:
    site(live, "/")
    live.app |= {"pages": {"/": 500}}
    assert released(live, "1.2.0")[0] == 0


def test_a_page_of_a_first_release_has_to_be_answered(tmp_path: Path) -> None:
    fresh = installed(tmp_path, public_paths=["/"])
    fresh.app |= {"pages": {"/": 500}}
    assert "/ answers 500. Everything is undone" in released(fresh, "1.0.0")[1]
    fresh.app |= {"pages": {"/": 404}}
    assert released(fresh, "1.0.0")[0] == 0


def test_an_app_gets_its_first_webhook_while_it_serves(tmp_path: Path) -> None:
    """The live release has no secret of Telegram's to be asked with."""
    fresh = installed(tmp_path, webhook_path=None)
    without = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("TELEGRAM_")}
    fresh.paths.next_environment.write_bytes(canonical(without))
    assert released(fresh, "1.0.0")[0] == 0
    site(fresh, webhook_path="/webhook")
    fresh.paths.next_environment.write_bytes(canonical(ENVIRONMENT))
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert (code, "webhook    done told" in shown) == (0, True), shown


def test_a_look_that_fails_once_or_twice_is_a_mishap(live: Watched) -> None:
    found = [{"/": "/ answers 500"}, {"/": "/ answers 500"}, {}, {"/": "/ answers 500"}]
    watch.watch(stack(live), "blue", None, flip(live), lambda: found.pop(0) if found else {})


def test_a_rollback_looks_at_no_page(live: Watched) -> None:
    """What it leads away from may be worse."""
    assert released(live, "1.2.0")[0] == 0
    site(live, "/")
    live.app |= {"pages": {"/": 500}}
    assert stackctl(live, "rollback")[0] == 0


def test_an_older_declaration_without_public_paths_is_taken(live: Watched) -> None:
    assert "public_paths" not in json.loads(live.paths.config.read_text())
    assert config.load(live.paths).public_paths == ()
    site(live, "no path")
    with pytest.raises(RefusedError, match=r"public_paths\[0\] must be a path that begins with /"):
        config.load(live.paths)
