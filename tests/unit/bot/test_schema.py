"""The bot's revisions have the right order and kinds, and the right ones are pending in a database."""

import runpy
from pathlib import Path

import pytest
from marketplace_bot.schema import Revision, pending, revisions

VARIANTS = Path(__file__).parents[2] / "lab/variants"

ONE, TWO, THREE = (Revision(revision=name, kind="expand") for name in ("1", "2", "3"))


@pytest.mark.parametrize(
    ("current", "lacks"),
    [(None, [ONE, TWO, THREE]), ("1", [TWO, THREE]), ("3", [])],
    ids=["empty database", "behind", "current"],
)
def test_the_revisions_after_the_current_one_are_pending(current: str | None, lacks: list[Revision]) -> None:
    assert pending([ONE, TWO, THREE], current) == lacks


def test_a_newer_versions_revision_leaves_nothing_pending() -> None:
    """Nothing is pending, so the live release stays ready after the next release has migrated the database."""
    assert pending([ONE, TWO], "3") == []


def test_every_revision_says_whether_it_expands_or_contracts() -> None:
    known = revisions()
    assert [revision["revision"] for revision in known] == sorted({revision["revision"] for revision in known})
    assert {revision["kind"] for revision in known} <= {"expand", "contract"}
    assert known


@pytest.mark.parametrize("name", ["r0004_expand", "r0004_fails", "r0004_hangs"])
def test_a_variants_revision_follows_the_bots_last(name: str) -> None:
    assert runpy.run_path(str(VARIANTS / f"{name}.py"))["down_revision"] == revisions()[-1]["revision"]
