"""`make prune` deletes the right backups from the off-site repository, and asks a person in the right cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.offsite import look, prune
from deploys.offsite.prune import FLOOR
from deploys.offsite.restic import RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED, REFUSED
from stackctl.backup import stored
from stackctl.backup.manifest import DUMP, GLOBALS, STATE, File, Manifest
from stackctl.backup.stored import Stored
from tests.support.fakes.repository import (
    DAY,
    HOUR,
    QUARTER,
    SHA256,
    InMemory,
    a_person_is_needed,
    at_a_terminal,
    ids,
    night,
    nightly,
    plan,
    pruned,
    pruned_before,
    stored_as,
)
from tests.support.manifests import NOON, made
from tests.support.settings import ROOT, settings_of


def test_seven_days_four_weeks_and_six_months_stay() -> None:
    chosen = plan(nightly(365))
    assert len(chosen.keep) in range(7 + 4 + 6 - 4, 7 + 4 + 6 + 1)
    assert [one.manifest.sequence for one in chosen.keep][-7:] == [*range(358, 365)]
    assert len(chosen.keep) + len(chosen.drop) == 365


def test_the_numbers_are_those_of_the_docs() -> None:
    assert (7, 4, 6, timedelta(days=60)) == (prune.DAILY, prune.WEEKLY, prune.MONTHLY, FLOOR)
    text = (ROOT / "docs/reference/backups.md").read_text()
    assert "The newest backup of each of 7 days, 4 weeks and 6 months is kept." in text.replace("\n", " ")
    assert "less than 60 days ago" in text.replace("\n", " ")


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40))
def test_nothing_goes_for_which_no_newer_verified_one_stays(days: Sequence[tuple[int, bool]]) -> None:
    """Whatever dates the manifests have, prune deletes a backup only if a newer verified backup stays."""
    told = [made(number, NOON + day * DAY, verified=good) for number, (day, good) in enumerate(days)]
    chosen = plan([stored_as(one) for one in told])
    stays = [one.manifest.time for one in chosen.keep if one.manifest.verified]
    assert all(any(one.manifest.time <= kept for kept in stays) for one in chosen.drop)
    verified = [one.at for one in stored.judged(map(stored_as, told)) if one.manifest.verified and not one.doubts]
    assert [one.at for one in chosen.proof][:1] == sorted(verified)[-1:]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(-20, 40), st.integers(0, 300)), max_size=40))
def test_nothing_goes_that_the_storage_took_within_the_floor(sent: Sequence[tuple[int, int, int]]) -> None:
    """Whatever dates the manifests have, prune keeps every backup that was sent within the minimum age `FLOOR`."""
    now = NOON + 400 * DAY
    found = [
        stored_as(made(number, NOON + day * DAY - off * HOUR), NOON + day * DAY, position)
        for position, (day, off, number) in enumerate(sent)
    ]
    assert all(now - one.at >= FLOOR for one in plan(found, floor=FLOOR, now=now).drop)


def test_all_of_the_floor_stays_and_what_is_older_goes_by_its_month() -> None:
    found = nightly(150)
    now = found[-1].at + HOUR
    chosen = plan(found, floor=FLOOR, now=now)
    within = {one.snapshot.id for one in found if now - one.at < FLOOR}
    assert len(within) == FLOOR.days
    assert within <= ids(chosen.keep)
    older = [one.at for one in chosen.keep if one.snapshot.id not in within]
    assert [f"{at:%m-%d}" for at in older] == ["11-30", "12-31", "01-31"]


def test_periods_are_those_of_the_storage_s_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods follow the storage's dates. A manifest's date may be hours off, and so in another day, week or month."""
    found = [stored_as(one.manifest, one.at + 20 * HOUR) for one in nightly(3)]
    seen: list[Manifest] = []

    def choose(told: Sequence[Manifest], *_: int) -> set[str]:
        seen.extend(told)
        return set()

    monkeypatch.setattr(prune.retention, "choose", choose)
    plan(found)
    assert [one.time for one in seen] == [one.at for one in found]


def test_prune_deletes_by_explicit_ids_after_reading_the_newest_back(ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    before = there.backups
    assert pruned(there, ledger) == DONE
    wanted = [one.snapshot.id for one in plan(before, floor=FLOOR).drop]
    newest = before[-1]
    assert there.ran[-5:] == [
        *(["describe", newest.snapshot.id, f"{newest.snapshot.path}/{name}"] for name in newest.manifest.files),
        ["forget", "--prune", *wanted],
        ["check", "--read-data-subset=5%"],
    ]
    assert wanted


def test_a_newest_one_that_was_sent_again_needs_no_whole_first_try(ledger: Path) -> None:
    """If the storage has two copies of a backup, both stay, and they count as one backup.

    A damaged copy that an intruder sent therefore does no harm.
    """
    backups = nightly(QUARTER)
    again = [stored_as(one.manifest, one.at + HOUR, 1) for one in backups[-3:]]
    for damaged in (ids(backups[-3:]), ids(again)):
        there = pruned_before(InMemory([*backups, *again], damaged=damaged), ledger)
        assert pruned(there, ledger) == DONE
        assert {*there.forgotten} == ids(plan(backups, floor=FLOOR).drop)
        ledger.unlink()


@pytest.mark.parametrize("differs", ["another content", "another size"])
def test_a_damaged_newest_one_saves_all_others(differs: str, ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    if differs == "another size":
        there.bytes_there = 999
    else:
        there.damaged = ids(there.backups)
    with pytest.raises(
        RepositoryError, match=r"postgres\.dump in the newest verified backup, .*, differs from the file"
    ):
        pruned(there, ledger)
    assert "forget" not in there.verbs


def test_without_a_verified_backup_nothing_is_deleted(ledger: Path) -> None:
    told = [made(number, NOON + number * DAY, verified=False) for number in range(QUARTER)]
    there = pruned_before(InMemory([stored_as(one) for one in told]), ledger)
    assert pruned(there, ledger) == DONE
    assert "forget" not in there.verbs


def test_a_plan_without_a_proof_is_refused(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    """Prune refuses a plan that keeps nothing, as a guard against an error in the choice."""
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    monkeypatch.setattr(prune.retention, "choose", lambda *_: set())
    monkeypatch.setattr(prune, "FLOOR", timedelta(0))
    monkeypatch.setattr(prune.plan, "__defaults__", (timedelta(0),))
    assert pruned(there, ledger) == REFUSED
    assert "forget" not in there.verbs


def test_nothing_to_drop_is_no_failure(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    assert pruned(InMemory(nightly(3)), ledger, sure=False) == DONE
    assert "There is nothing to delete." in capsys.readouterr().out


def test_without_a_yes_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    for answer, code in ((None, REFUSED), ("n", REFUSED), ("", REFUSED), ("y", DONE)):
        at_a_terminal(monkeypatch, answer)
        assert pruned(there, ledger, sure=False) == code
        assert ("forget" in there.verbs) == (code == DONE)


def test_a_refused_prune_has_an_exit_code_of_its_own(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    settings = settings_of("prod", {"backups_ledger": str(ledger)})
    monkeypatch.setattr(prune, "load_settings", lambda _: settings)
    monkeypatch.setattr(prune.Repository, "of", lambda _: there)
    monkeypatch.setattr(look, "now", lambda: there.now)
    monkeypatch.setattr("sys.argv", ["prune", "inventories/prod.py"])
    at_a_terminal(monkeypatch, "n")
    assert prune.main() == REFUSED
    assert capsys.readouterr().err == "prune: you did not answer yes\n"
    there.failing = "unlock"
    assert prune.main() == FAILED


def test_a_shrunk_backup_is_deleted_only_if_a_person_agrees_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    """An intruder sent many backups that look newer.

    If `YES=1` were enough, these forgeries would displace the real backups.
    """
    shrunk = dict.fromkeys((DUMP, GLOBALS, STATE), File(499, SHA256))
    forged = [stored_as(night(number, files=shrunk)) for number in range(15, QUARTER)]
    there = pruned_before(InMemory([*nightly(15), *forged], bytes_there=499), ledger)
    newest = forged[-1].manifest.id
    a_person_is_needed(
        monkeypatch,
        capsys,
        there,
        ledger,
        f"The dump of {newest}, the newest verified backup, has 0.0 MB, but the dump of a backup to delete has",
    )


def test_the_first_prune_needs_a_person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    there = InMemory(nightly(QUARTER))
    a_person_is_needed(monkeypatch, capsys, there, ledger, "The ledger has no finished prune yet")
    at_a_terminal(monkeypatch, None)
    there.now += 2 * DAY
    assert pruned(there, ledger) == DONE


def test_a_year_of_prunes_needs_no_person_but_a_gap_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    """A prune every ten days needs no person. A plan that would delete all older months in one prune needs a person."""
    at_a_terminal(monkeypatch, None)
    there = pruned_before(InMemory(nightly(FLOOR.days)), ledger)
    for number in range(FLOOR.days, 400):
        there.backups.append(stored_as(night(number)))
        there.now = there.backups[-1].at + HOUR
        if number % 10 == 0:
            assert pruned(there, ledger) == DONE, capsys.readouterr()
    assert pruned(there, ledger) == DONE
    assert len(there.backups) in range(FLOOR.days + 3, FLOOR.days + 6)
    monkeypatch.setattr(prune, "MONTHLY", 0)
    there.ran.clear()
    capsys.readouterr()
    a_person_is_needed(
        monkeypatch, capsys, there, ledger, "of the backups to delete were older than 60 days at the last prune"
    )


# --- intruders ------------------------------------------------------------------------------------------------------


def seven_forgeries(now: datetime) -> list[Stored]:
    """Forge seven backups as an intruder would.

    The seven forgeries have high numbers and dates a month apart, and are sent at the same time.
    """
    dates = [datetime(2027, month, 1, tzinfo=UTC) for month in range(1, 8)]
    files = {DUMP: File(1000, SHA256)}
    forged = [made(100000 + number, at, files=files) for number, at in enumerate(dates)]
    named = [replace(one, id=f"2027{number:02}01T000000.000Z") for number, one in enumerate(forged, start=1)]
    return [stored_as(one, now) for one in named]


def test_seven_forgeries_replace_no_backup(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    real = nightly(200)
    there = pruned_before(InMemory(real), ledger)
    expected = ids(plan(real, floor=FLOOR).drop)
    there.backups = [*real, *seven_forgeries(there.now)]
    assert pruned(there, ledger) == REFUSED, "the plan deletes more than the last prune left, so a person is needed"
    assert pruned(pruned_before(there, ledger, 200 * DAY), ledger) == DONE
    assert {*there.forgotten} == expected
    shown = capsys.readouterr().out
    for number in range(1, 8):
        assert f"2027{number:02}01T000000.000Z (snapshot 0000" in shown
    assert (
        "stays, and is in doubt: its manifest says 2027-01-01 00:00, but the storage received the backup earlier"
        in shown
    )
    assert "its number 100000 is far higher than all earlier numbers" in shown
    there.now += 2 * FLOOR
    there.backups += [stored_as(night(200 + day)) for day in range(1, 100)]
    assert pruned(there, ledger) == DONE
    assert ids(there.backups) >= ids(seven_forgeries(NOON)), "a forgery in doubt was deleted before a person had looked"


@pytest.mark.parametrize("backdated", [True, False])
def test_forgeries_with_the_storage_s_own_dates_take_a_day_s_place(*, backdated: bool) -> None:
    """Forgeries that were sent on one day take the place of only one day, even if their own dates are months apart."""
    real = nightly(200)
    now = real[-1].at + DAY
    times = [now - 25 * number * DAY if backdated else now - number * HOUR for number in range(1, 8)]
    forged = [made(200 + number, at, files={DUMP: File(1000, SHA256)}) for number, at in enumerate(times)]
    both = [*real, *(stored_as(one, now) for one in forged)]
    dropped, before = ids(plan(both, floor=FLOOR, now=now).drop), ids(plan(real, floor=FLOOR, now=now).drop)
    assert dropped == before
    assert before


def test_without_the_storage_s_dates_the_forgeries_would_have_won() -> None:
    """Control: if prune trusted the manifests' dates, the forgeries would displace all older backups."""
    real = nightly(200)
    forged = [replace(one, at=one.manifest.time) for one in seven_forgeries(NOON)]
    believed = [replace(one, manifest=replace(one.manifest, sequence=200 + n)) for n, one in enumerate(forged)]
    late = plan([*real, *believed], now=believed[-1].at + DAY)
    assert ids(real) <= ids(late.drop)


def test_two_snapshots_of_one_id_stay_and_neither_counts(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    real = nightly(QUARTER)
    shadow = stored_as(replace(real[-1].manifest, tables={"public.offers": 666}), real[-1].at + HOUR, 1)
    there = pruned_before(InMemory([*real, shadow]), ledger)
    assert pruned(there, ledger) == DONE
    described = {arguments[1] for arguments in there.ran if arguments[0] == "describe"}
    assert described == {real[-2].snapshot.id}, "the newest backup without a doubt is the one before"
    assert {real[-1].snapshot.id, shadow.snapshot.id} <= ids(there.backups)
    assert re.search(
        r"is in doubt: snapshot \w+ has the same backup ID, but different content", capsys.readouterr().out
    )


def test_a_shadow_of_an_old_one_has_neither_dropped() -> None:
    real = nightly(200)
    shadow = stored_as(replace(real[3].manifest, tables={}), real[-1].at, 1)
    assert not {real[3].snapshot.id, shadow.snapshot.id} & ids(plan([*real, shadow], floor=FLOOR).drop)
    assert real[3].snapshot.id in ids(plan(real, floor=FLOOR).drop)


def test_a_snapshot_without_a_readable_manifest_stays_and_is_reported(
    capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    others = {"f" * 64: "no JSON", "e" * 64: made(99).to_json()}
    there = pruned_before(InMemory(nightly(QUARTER), others=others), ledger)
    assert pruned(there, ledger) == DONE
    assert there.forgotten
    assert not {*there.forgotten} & {*there.others}
    shown = capsys.readouterr().out
    assert "Snapshot ffffffff stays, but is no backup" in shown
    assert "Snapshot eeeeeeee stays, but is no backup" in shown


def test_without_a_repository_it_says_how_to_make_one(ledger: Path) -> None:
    with pytest.raises(RepositoryError, match=r"there is no repository yet\. Next: make offsite"):
        pruned(InMemory(there=False), ledger)
