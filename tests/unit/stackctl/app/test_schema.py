"""The schema's revisions decide which releases can run. Each image reports the revisions that it knows."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.app import schema
from stackctl.app.state import Release, Revision
from stackctl.core.errors import FailedError
from stackctl.core.program import Result
from tests.support.watched import Watched, stack, watched

KINDS = st.sampled_from(["expand", "contract"])
HISTORIES = st.lists(KINDS, max_size=8).map(
    lambda kinds: tuple(Revision(f"{number:04}", kind) for number, kind in enumerate(kinds))
)


@pytest.fixture
def live(tmp_path: Path) -> Watched:
    return watched(tmp_path)


def knowing(revision: str | None) -> Release:
    return Release("id", "1.0.0", "image", "e", revision, "now")


@given(HISTORIES)
def test_the_first_breaking_revision_is_a_contract_after_an_expand(coming: tuple[Revision, ...]) -> None:
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
    assert cut is None or f"{cut.revision} is a contract migration" in str(reason)


@given(HISTORIES)
def test_without_known_revisions_no_release_is_incompatible(applied: tuple[Revision, ...]) -> None:
    assert schema.incompatibility((), knowing("0001")) is None
    for unknown in ("elsewhere", None):
        assert (schema.incompatibility(applied, knowing(unknown)) is None) == (not applied)


def test_an_incompatible_release_has_a_reason() -> None:
    applied = tuple(Revision(f"000{n}", "contract" if n in {2, 4} else "expand") for n in range(5))
    assert schema.incompatibility(applied, knowing("0000")) == "the later revision 0002 is a contract migration"
    assert schema.incompatibility(applied, knowing("0001")) == "the later revision 0004 is a contract migration"
    assert schema.incompatibility(applied, knowing("0003")) is None  # 0003 is the `expand` that 0004 completes
    assert schema.incompatibility(applied, knowing("0004")) is None
    assert schema.incompatibility(applied, knowing("x")) == "it is unknown which revisions came after x"


@given(HISTORIES, st.data())
def test_an_interrupted_migration_leaves_its_first_revisions_applied(
    every: tuple[Revision, ...], data: st.DataObject
) -> None:
    """A migration that was killed or failed may have applied only its first revisions.

    The next attempt applies the other revisions.
    """
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


def test_a_revision_applied_by_other_means_hides_no_other() -> None:
    """A pending revision does not count as applied, even if the database is at a revision that no release knows."""
    one, two = Revision("1", "expand"), Revision("2", "contract")
    assert schema.applied((one, two), schema.Report("elsewhere", "2", (two,))) == (one,)


def reported(every: tuple[Revision, ...], done: int, known: int) -> schema.Report:
    """Return the report of an image that has the first `known` revisions.

    The database has the first `done` revisions.
    """
    names = [None, *(one.revision for one in every)]
    return schema.Report(names[done], names[known], every[done:known])


@given(HISTORIES, st.data())
def test_what_is_live_lives_with_all_that_comes_past_its_schema_or_it_is_refused(
    every: tuple[Revision, ...], data: st.DataObject
) -> None:
    """The live release works with every revision that may be applied. Otherwise the new release is refused."""
    done = data.draw(st.integers(0, len(every)))
    known = data.draw(st.integers(done, len(every)))
    report = reported(every, done, known)
    assert schema.release_conflict(every[:done], report, None) is None
    if done:
        at = data.draw(st.integers(0, done - 1))
        cut = schema.first_breaking(every[at + 1 : known])
        reason = schema.release_conflict(every[:done], report, knowing(every[at].revision))
        assert (reason is None) == (cut is None)
        assert cut is None or f"{cut.revision} is a contract, and 1.0.0 is older than the expand before it" in str(
            reason
        )


@given(HISTORIES.filter(len), st.data())
def test_an_image_that_the_schema_has_moved_past_is_refused(every: tuple[Revision, ...], data: st.DataObject) -> None:
    known = data.draw(st.integers(1, len(every)))
    live = data.draw(st.none() | st.just(knowing(every[-1].revision)))
    cut = schema.first_breaking(every[known:])
    reason = schema.release_conflict(every, reported(every, len(every), known), live)
    assert (reason is None) == (cut is None)
    assert cut is None or f"the later revision {cut.revision} is a contract migration" in str(reason)


def test_where_what_is_live_told_no_schema_nothing_is_in_its_way() -> None:
    every = (Revision("1", "expand"), Revision("2", "expand"))
    for unknown in ("elsewhere", None):
        assert schema.release_conflict(every[:1], reported(every, 1, 2), knowing(unknown)) is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "does not follow the app contract"),
        ("{", "does not follow the app contract"),
        ("[]", "does not follow the app contract"),
        ('{"current": null, "head": null}', "does not follow the app contract"),
        ('{"current": null, "head": null, "pending": null}', "does not follow the app contract"),
        (
            r'{"current": "\u001b]0;x\u0007", "head": "1", "pending": []}',
            "'\\\\x1b]0;x\\\\x07' is not a valid revision name",
        ),
        ('{"current": null, "head": "1; id", "pending": []}', "'1; id' is not a valid revision name"),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "-f", "kind": "expand"}]}',
            "'-f' is not a valid revision name",
        ),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "1"}]}',
            "does not follow the app contract",
        ),
        (
            '{"current": null, "head": "1", "pending": [{"revision": "1", "kind": "both"}]}',
            "a revision has the unknown kind both. Next: mark it as `expand` or `contract`",
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
