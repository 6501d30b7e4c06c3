"""The ledger records the snapshots seen in the off-site repository, and a later change raises an alarm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from deploys.offsite import look
from deploys.offsite.look import Ledger
from deploys.offsite.prune import FLOOR
from deploys.offsite.restic import Repository, RepositoryError
from deploys.terminal.exit_codes import DONE
from tests.support.fakes.repository import (
    DAY,
    HOUR,
    QUARTER,
    InMemory,
    a_person_is_needed,
    ids,
    looked,
    night,
    nightly,
    plan,
    pruned,
    pruned_before,
    stored_as,
)
from tests.support.manifests import NOON
from tests.support.settings import settings_of


def test_what_was_seen_is_remembered_with_its_first_day(ledger: Path) -> None:
    there = InMemory(nightly(2))
    looked(there, ledger)
    first = there.now
    there.backups.append(stored_as(night(2)))
    there.now = first + DAY
    shown = looked(there, ledger)
    kept = look.load(ledger, there.url)
    assert [one.first_seen for one in kept.snapshots.values()] == [first, first, first + DAY]
    assert {one.backup for one in kept.snapshots.values()} == {one.manifest.id for one in there.backups}
    assert (kept.looked, kept.pruned, kept.repository) == (first + DAY, None, "r1")
    assert f"{there.backups[2].name}, known since {first + DAY:%Y-%m-%d}" in shown[3]
    assert ledger.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("how", ["gone", "changed", "dated again", "of old", "another repository"])
def test_a_changed_snapshot_is_reported_until_a_person_agrees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path, how: str
) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    says = {
        "gone": "is gone, and make prune did not drop it",
        "changed": "it is no longer what was seen on 2026-02-21",
        "dated again": "it is no longer what was seen on 2026-02-21",
        "of old": "which did not see it",
        "another repository": "is not the repository of the last look",
    }[how]
    one = there.backups[-2]
    match how:
        case "gone":
            there.backups.remove(one)
        case "changed":
            there.backups[-2] = replace(one, manifest=replace(one.manifest, tables={}))
        case "dated again":
            there.backups[-2] = replace(one, at=one.at + HOUR)
        case "of old":
            there.backups.insert(1, stored_as(night(0), NOON + 2 * HOUR, 1))
        case "another repository":
            there.identity = "r2"
    there.now += DAY
    assert any(says in line for line in looked(there, ledger))
    assert any(says in line for line in looked(there, ledger)), "the alarm was not repeated"
    capsys.readouterr()
    a_person_is_needed(monkeypatch, capsys, there, ledger, says)
    assert not any(says in line for line in looked(there, ledger)), "the alarm was repeated after a confirmation"


def test_an_old_backup_that_was_never_seen_replaces_no_other(ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    of_old = stored_as(night(0), NOON + 2 * HOUR, 1)
    seen = look.look(cast(Repository, replace(there, backups=[of_old, *there.backups])), look.load(ledger, there.url))
    assert [one.snapshot.id for one in seen.found if one.doubts] == [of_old.snapshot.id]


def test_a_snapshot_that_became_unreadable_raises_an_alarm(ledger: Path) -> None:
    """An intruder with a key that can delete may remove a snapshot's content and leave its name."""
    there = pruned_before(InMemory(nightly(3)), ledger)
    gone = there.backups.pop(1)
    there.others[gone.snapshot.id] = "no JSON"
    for _ in range(2):
        assert any(f"(snapshot {gone.snapshot.id[:8]}" in line and "any more" in line for line in looked(there, ledger))


@pytest.mark.parametrize("gone", [True, False])
def test_a_prune_that_was_killed_raises_no_alarm(ledger: Path, *, gone: bool) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    before = there.backups
    there.failing = "forget"
    with pytest.raises(RepositoryError, match="restic failed"):
        pruned(there, ledger)
    dropped = ids(plan(before, floor=FLOOR).drop)
    if gone:
        there.backups = [one for one in before if one.snapshot.id not in dropped]
    there.failing = ""
    for _ in range(2):
        assert not [line for line in looked(there, ledger) if "gone" in line or "doubt" in line]
    assert pruned(there, ledger) == DONE
    assert ids(there.backups) == ids(before) - dropped


def test_a_prune_that_dropped_something_leaves_no_alarm(ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    assert pruned(there, ledger) == DONE
    assert there.forgotten
    assert not [line for line in looked(there, ledger) if "gone" in line or "doubt" in line]
    assert look.load(ledger, there.url).pruned == there.now


def test_a_ledger_of_a_repository_that_group_data_named_before_is_none_of_this(ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(3)), ledger)
    there.url += "2"
    assert look.load(ledger, there.url) == Ledger(there.url)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"url": "s3:https://s3.test/bucket", "snapshots": {"a": {}}}'])
def test_a_malformed_ledger_is_one_line(ledger: Path, content: str) -> None:
    ledger.write_text(content)
    with pytest.raises(RepositoryError, match=r"is malformed\. Next: git checkout"):
        look.load(ledger, "s3:https://s3.test/bucket")


def test_a_ledger_whose_days_have_no_offset_is_malformed(ledger: Path) -> None:
    """A time without a UTC offset cannot be compared with other times."""
    url = "s3:https://s3.test/bucket"
    look.save(ledger, Ledger(url, "r1", NOON, NOON, {"a": look.Seen("b", "c", NOON, NOON)}))
    whole = ledger.read_text()
    for name in ("looked", "pruned", "stored", "first_seen"):
        without = NOON.replace(tzinfo=None).isoformat()
        ledger.write_text(whole.replace(f'"{name}": "{NOON.isoformat()}', f'"{name}": "{without}'))
        with pytest.raises(RepositoryError, match="is malformed"):
            look.load(ledger, url)


def test_a_look_is_a_program_that_says_whether_somebody_has_to_look(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = InMemory(nightly(3))
    settings = settings_of("prod", {"backups_ledger": str(ledger)})
    monkeypatch.setattr(look, "load_settings", lambda _: settings)
    monkeypatch.setattr(look.Repository, "of", lambda _: there)
    assert look.main("inventories/prod.py") == 0
    assert f"{there.backups[2].name}, known since" in capsys.readouterr().out
    del there.backups[0]
    assert look.main("inventories/prod.py") == 4
    assert "is gone, and make prune did not drop it" in capsys.readouterr().out
    there.failing = "snapshots"
    assert look.main("inventories/prod.py") == 1
    assert "look: restic failed" in capsys.readouterr().err
