"""The bot's revisions: an order, a kind each, and what a database lacks."""

import pytest
from marketplace_bot.schema import Revision, pending, revisions

ONE, TWO, THREE = (Revision(revision=name, kind="expand") for name in ("1", "2", "3"))


@pytest.mark.parametrize(
    ("current", "lacks"),
    [(None, [ONE, TWO, THREE]), ("1", [TWO, THREE]), ("3", [])],
    ids=["empty database", "behind", "current"],
)
def test_pending_is_what_comes_after_the_current_revision(current: str | None, lacks: list[Revision]) -> None:
    assert pending([ONE, TWO, THREE], current) == lacks


def test_a_newer_versions_revision_leaves_nothing_pending() -> None:
    """Else the live release would turn unready as soon as the next one has migrated."""
    assert pending([ONE, TWO], "3") == []


def test_every_revision_says_whether_it_expands_or_contracts() -> None:
    known = revisions()
    assert [revision["revision"] for revision in known] == sorted({revision["revision"] for revision in known})
    assert {revision["kind"] for revision in known} <= {"expand", "contract"}
    assert known
