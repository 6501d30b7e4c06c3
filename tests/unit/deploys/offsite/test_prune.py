"""The repository off the droplet from the operator's side: how it is made, and what is dropped from it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploys.offsite import look, prune, restic, setup
from deploys.offsite.look import Ledger
from deploys.offsite.prune import FLOOR, Plan
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from deploys.terminal.exit_codes import DONE, FAILED, REFUSED
from stackctl.backup import stored
from stackctl.backup.manifest import DUMP, GLOBALS, NAME, STATE, File, Manifest
from stackctl.backup.stored import Snapshot, Stored
from stackctl.core.errors import RefusedError
from tests.support.manifests import NOON, made
from tests.support.settings import ROOT, settings_of

SHA256 = "a" * 64
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def stored_as(told: Manifest, at: datetime | None = None, number: int = 0) -> Stored:
    """Taken by the storage an hour after its dump, unless it is told otherwise."""
    name = f"{told.sequence:032x}{number:032x}"
    path = f"/opt/backups/{told.id}"
    return Stored(Snapshot(name, told.at, told.id, path), told, at or told.time + HOUR)


def night(number: int, **more: Any) -> Manifest:
    return made(number, NOON + number * DAY, **({"files": {DUMP: File(1000, SHA256)}} | more))


def nightly(days: int) -> list[Stored]:
    return [stored_as(night(number)) for number in range(days)]


def plan(
    found: Sequence[Stored],
    *,
    floor: timedelta = timedelta(0),
    now: datetime | None = None,
    pruned: datetime | None = None,
) -> Plan:
    """On the day after the last one, unless it is told otherwise; by retention alone, unless there is a floor."""
    now = now or max((one.at for one in found), default=NOON) + DAY
    return prune.plan(stored.judged(found), now, pruned or now - DAY, floor)


def ids(group: Sequence[Stored]) -> set[str]:
    return {one.snapshot.id for one in group}


@dataclass
class InMemory:
    """A repository in the place of one that restic asks for."""

    backups: list[Stored] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    """The manifests of snapshots that are no backups, by their ids."""
    there: bool = True
    damaged: set[str] = field(default_factory=set)
    """Snapshots whose files are not what was sent."""
    bytes_there: int = 1000
    passwords: dict[str, str] = field(default_factory=lambda: {OPERATOR: "k1", DROPLET: "k2"})
    """restic's keys, by whose they are."""
    ran: list[list[str]] = field(default_factory=list)
    failing: str = ""
    url: str = "s3:https://s3.test/bucket"
    app: str = "bot"
    identity: str = "r1"
    now: datetime = NOON

    def __post_init__(self) -> None:
        self.now = max((one.at for one in self.backups), default=NOON) + DAY

    def exists(self, whose: str) -> bool:
        return self.there

    def opens(self, whose: str) -> bool:
        return whose in self.passwords

    def current_key(self, whose: str) -> str:
        return self.passwords[whose]

    def add_key(self, whose: str, opened_by: str) -> None:
        assert opened_by in self.passwords
        self.passwords[whose] = f"new of {whose}"

    def json(self, *arguments: str) -> Any:
        if arguments == ("cat", "config"):
            return {"id": self.identity}
        return [{"id": key} for key in self.passwords.values()]

    def describe(self, snapshot: str, path: str, most: int) -> File:
        self.ran.append(["describe", snapshot, path])
        return File(min(self.bytes_there, most + 1), "b" * 64 if snapshot in self.damaged else SHA256)

    def stored_at(self, snapshot: str) -> datetime:
        return next(one.at for one in self.backups if one.snapshot.id == snapshot)

    def restic(self, *arguments: str, **_: Any) -> str:
        self.ran.append(list(arguments))
        if arguments[0] == self.failing:
            raise RepositoryError("restic failed")
        match arguments:
            case ("init",):
                self.there, self.passwords = True, {OPERATOR: "k1"}
            case ("key", "remove", key):
                self.passwords = {whose: one for whose, one in self.passwords.items() if one != key}
            case ("snapshots", "--json", "--host", self.app):
                every = [(one.snapshot.id, one.snapshot.backup, one.snapshot.path) for one in self.backups]
                every += [(number, "20251123T000000.000Z", "/x") for number in self.others]
                return json.dumps([{"id": i, "time": "", "tags": [tag], "paths": [path]} for i, tag, path in every])
            case ("dump", number, path):
                assert path.endswith(NAME)
                found = [one.manifest for one in self.backups if one.snapshot.id == number]
                return found[0].to_json() if found else self.others[number]
            case ("forget", "--prune", *gone):
                self.backups = [one for one in self.backups if one.snapshot.id not in gone]
            case ("unlock",) | ("check", *_):
                pass
            case _:
                raise AssertionError(f"restic {arguments}")
        return ""

    @property
    def verbs(self) -> list[str]:
        return [arguments[0] for arguments in self.ran]

    @property
    def forgotten(self) -> list[str]:
        return [name for arguments in self.ran if arguments[0] == "forget" for name in arguments[2:]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "prod.backups.json"


def pruned(there: InMemory, ledger: Path, *, sure: bool = True) -> int:
    with patch.object(look, "now", lambda: there.now), patch("os.fsync"):
        try:
            return prune.prune(cast(Repository, there), ledger, sure=sure)
        except RefusedError as error:
            print(error, file=sys.stderr)
            return error.code


def looked(there: InMemory, ledger: Path) -> list[str]:
    with patch.object(look, "now", lambda: there.now), patch("os.fsync"):
        code, lines = look.looked(cast(Repository, there), ledger)
    assert code in {0, 4}
    return lines


def pruned_before(there: InMemory, ledger: Path, ago: timedelta = 30 * DAY) -> InMemory:
    """Here it was seen before, and a prune came to its end `ago`."""
    looked(there, ledger)
    look.save(ledger, replace(look.load(ledger, there.url), pruned=there.now - ago))
    there.ran.clear()
    return there


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    """Where somebody types that; None: there is no terminal."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)


QUARTER = 90
"""Nights, of which a month's are past the floor."""


# --- what is dropped ------------------------------------------------------------------------------------------------


def test_seven_days_four_weeks_and_six_months_stay() -> None:
    chosen = plan(nightly(365))
    assert len(chosen.keep) in range(7 + 4 + 6 - 4, 7 + 4 + 6 + 1)
    assert [one.manifest.sequence for one in chosen.keep][-7:] == [*range(358, 365)]
    assert len(chosen.keep) + len(chosen.drop) == 365


def test_the_numbers_are_those_of_the_docs() -> None:
    assert (7, 4, 6, timedelta(days=60)) == (prune.DAILY, prune.WEEKLY, prune.MONTHLY, FLOOR)
    text = (ROOT / "docs/reference/backups.md").read_text()
    assert "The newest backup of each of 7 days, 4 weeks and 6 months stays." in text.replace("\n", " ")
    assert "less than 60 days ago" in text.replace("\n", " ")


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40))
def test_nothing_goes_for_which_no_newer_verified_one_stays(days: Sequence[tuple[int, bool]]) -> None:
    """Whatever the clock said."""
    told = [made(number, NOON + day * DAY, verified=good) for number, (day, good) in enumerate(days)]
    chosen = plan([stored_as(one) for one in told])
    stays = [one.manifest.time for one in chosen.keep if one.manifest.verified]
    assert all(any(one.manifest.time <= kept for kept in stays) for one in chosen.drop)
    verified = [one.at for one in stored.judged(map(stored_as, told)) if one.manifest.verified and not one.doubts]
    assert [one.at for one in chosen.proof][:1] == sorted(verified)[-1:]


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(-20, 40), st.integers(0, 300)), max_size=40))
def test_nothing_goes_that_the_storage_took_within_the_floor(sent: Sequence[tuple[int, int, int]]) -> None:
    """Whatever its manifest says."""
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
    """A manifest may be hours off, which nobody doubts, and so lie in another day, week and month."""
    found = [stored_as(one.manifest, one.at + 20 * HOUR) for one in nightly(3)]
    seen: list[Manifest] = []

    def choose(told: Sequence[Manifest], *_: int) -> set[str]:
        seen.extend(told)
        return set()

    monkeypatch.setattr(prune.retention, "choose", choose)
    plan(found)
    assert [one.time for one in seen] == [one.at for one in found]


def test_what_goes_goes_by_explicit_ids_once_the_newest_was_read_back(ledger: Path) -> None:
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
    """Nor does it count twice; both stay as long as it does. Nor does an intruder's damaged copy do any harm."""
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
        RepositoryError, match=r"postgres\.dump of .*, the newest verified backup, is not what was sent"
    ):
        pruned(there, ledger)
    assert "forget" not in there.verbs


def test_of_nothing_verified_nothing_goes(ledger: Path) -> None:
    told = [made(number, NOON + number * DAY, verified=False) for number in range(QUARTER)]
    there = pruned_before(InMemory([stored_as(one) for one in told]), ledger)
    assert pruned(there, ledger) == DONE
    assert "forget" not in there.verbs


def test_a_plan_without_a_proof_is_refused(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    """Should the choice ever be wrong."""
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    monkeypatch.setattr(prune.retention, "choose", lambda *_: set())
    monkeypatch.setattr(prune, "FLOOR", timedelta(0))
    monkeypatch.setattr(prune.plan, "__defaults__", (timedelta(0),))
    assert pruned(there, ledger) == REFUSED
    assert "forget" not in there.verbs


def test_nothing_to_drop_is_no_failure(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    assert pruned(InMemory(nightly(3)), ledger, sure=False) == DONE
    assert "There is nothing to delete." in capsys.readouterr().out


def test_without_a_yes_nothing_goes(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
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


def a_person_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], there: InMemory, ledger: Path, says: str
) -> None:
    """YES=1 drops nothing, and isn't offered; somebody at a terminal may."""
    at_a_terminal(monkeypatch, None)
    assert pruned(there, ledger, sure=True) == REFUSED
    shown = capsys.readouterr()
    assert says in shown.out
    assert "YES=1" not in shown.err
    for answer, code in (("n", REFUSED), ("y", DONE)):
        at_a_terminal(monkeypatch, answer)
        assert pruned(there, ledger, sure=True) == code
        assert ("forget" in there.verbs) == (code == DONE)


def test_what_shrank_goes_at_nobody_s_word_beforehand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    """Many that look newer, sent by who broke in: YES=1 would drop the real ones for them."""
    shrunk = dict.fromkeys((DUMP, GLOBALS, STATE), File(499, SHA256))
    forged = [stored_as(night(number, files=shrunk)) for number in range(15, QUARTER)]
    there = pruned_before(InMemory([*nightly(15), *forged], bytes_there=499), ledger)
    newest = forged[-1].manifest.id
    a_person_is_needed(
        monkeypatch,
        capsys,
        there,
        ledger,
        f"The dump of {newest}, the newest verified backup, has 0.0 MB, and one that would be deleted has",
    )


def test_the_first_prune_needs_a_person(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    there = InMemory(nightly(QUARTER))
    a_person_is_needed(monkeypatch, capsys, there, ledger, "The ledger knows of no finished prune")
    at_a_terminal(monkeypatch, None)
    there.now += 2 * DAY
    assert pruned(there, ledger) == DONE


def test_a_year_of_prunes_needs_nobody_and_a_hole_in_what_they_left_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    """Every ten days. Then the nights of five months are sent with dates that make the older months go at once."""
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
        monkeypatch, capsys, there, ledger, "that would be deleted were older than 60 days at the last prune"
    )


# --- who broke in ---------------------------------------------------------------------------------------------------


def seven_forgeries(now: datetime) -> list[Stored]:
    """As the review sent them: in one go, with high numbers, and with dates a month apart."""
    dates = [datetime(2027, month, 1, tzinfo=UTC) for month in range(1, 8)]
    files = {DUMP: File(1000, SHA256)}
    forged = [made(100000 + number, at, files=files) for number, at in enumerate(dates)]
    named = [replace(one, id=f"2027{number:02}01T000000.000Z") for number, one in enumerate(forged, start=1)]
    return [stored_as(one, now) for one in named]


def test_seven_forgeries_take_nobody_s_place(capsys: pytest.CaptureFixture[str], ledger: Path) -> None:
    real = nightly(200)
    there = pruned_before(InMemory(real), ledger)
    expected = ids(plan(real, floor=FLOOR).drop)
    there.backups = [*real, *seven_forgeries(there.now)]
    assert pruned(there, ledger) == REFUSED, "there is more to drop than the last prune left"
    assert pruned(pruned_before(there, ledger, 200 * DAY), ledger) == DONE
    assert {*there.forgotten} == expected
    shown = capsys.readouterr().out
    for number in range(1, 8):
        assert f"2027{number:02}01T000000.000Z (snapshot 0000" in shown
    assert "stays, and is in doubt: its manifest says 2027-01-01 00:00, later than the storage took it" in shown
    assert "its number, 100000, jumps" in shown
    there.now += 2 * FLOOR
    there.backups += [stored_as(night(200 + day)) for day in range(1, 100)]
    assert pruned(there, ledger) == DONE
    assert ids(there.backups) >= ids(seven_forgeries(NOON)), "in doubt, they stay until a person has looked"


@pytest.mark.parametrize("backdated", [True, False])
def test_forgeries_with_the_storage_s_own_dates_take_a_day_s_place(*, backdated: bool) -> None:
    """They are consistent with their manifests; or `restic backup --time` and manifests spread them over months."""
    real = nightly(200)
    now = real[-1].at + DAY
    times = [now - 25 * number * DAY if backdated else now - number * HOUR for number in range(1, 8)]
    forged = [made(200 + number, at, files={DUMP: File(1000, SHA256)}) for number, at in enumerate(times)]
    both = [*real, *(stored_as(one, now) for one in forged)]
    dropped, before = ids(plan(both, floor=FLOOR, now=now).drop), ids(plan(real, floor=FLOOR, now=now).drop)
    assert dropped == before
    assert before


def test_without_the_storage_s_dates_the_forgeries_would_have_won() -> None:
    """The control: had the storage had the dates that the manifests have, all older backups would be gone."""
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
    assert described == {real[-2].snapshot.id}, "the one before is the newest that is in no doubt"
    assert {real[-1].snapshot.id, shadow.snapshot.id} <= ids(there.backups)
    assert "is in doubt: another one has its ID, snapshot" in capsys.readouterr().out


def test_a_shadow_of_an_old_one_has_neither_dropped() -> None:
    real = nightly(200)
    shadow = stored_as(replace(real[3].manifest, tables={}), real[-1].at, 1)
    assert not {real[3].snapshot.id, shadow.snapshot.id} & ids(plan([*real, shadow], floor=FLOOR).drop)
    assert real[3].snapshot.id in ids(plan(real, floor=FLOOR).drop)


# --- what was seen before -------------------------------------------------------------------------------------------


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
def test_what_is_not_as_it_was_seen_is_told_until_a_person_agrees(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger: Path, how: str
) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    says = {
        "gone": "is gone, and make prune did not drop it",
        "changed": "it is no longer what was seen on 2026-02-21",
        "dated again": "it is no longer what was seen on 2026-02-21",
        "of old": "which did not see it",
        "another repository": "is another repository than at the last look",
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
    assert any(says in line for line in looked(there, ledger)), "it is told again"
    capsys.readouterr()
    a_person_is_needed(monkeypatch, capsys, there, ledger, says)
    assert not any(says in line for line in looked(there, ledger)), "somebody has seen it"


def test_what_was_never_seen_and_is_of_old_takes_nobody_s_place(ledger: Path) -> None:
    there = pruned_before(InMemory(nightly(QUARTER)), ledger)
    of_old = stored_as(night(0), NOON + 2 * HOUR, 1)
    seen = look.look(cast(Repository, replace(there, backups=[of_old, *there.backups])), look.load(ledger, there.url))
    assert [one.snapshot.id for one in seen.found if one.doubts] == [of_old.snapshot.id]


def test_what_could_be_read_before_and_can_t_be_now_is_an_alarm(ledger: Path) -> None:
    """Where the key can delete, what a snapshot is made of may be gone, and its name still there."""
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
    """They could be compared with no other."""
    url = "s3:https://s3.test/bucket"
    look.save(ledger, Ledger(url, "r1", NOON, NOON, {"a": look.Seen("b", "c", NOON, NOON)}))
    whole = ledger.read_text()
    for name in ("looked", "pruned", "stored", "first_seen"):
        without = NOON.replace(tzinfo=None).isoformat()
        ledger.write_text(whole.replace(f'"{name}": "{NOON.isoformat()}', f'"{name}": "{without}'))
        with pytest.raises(RepositoryError, match="is malformed"):
            look.load(ledger, url)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_new_repository_begins_a_ledger(ledger: Path, monkeypatch: pytest.MonkeyPatch, *, is_new: bool) -> None:
    there = pruned_before(InMemory(nightly(3)), ledger)
    settings = settings_of("prod", {"backups_ledger": str(ledger)})
    monkeypatch.setattr(setup, "load_settings", lambda _: settings)
    monkeypatch.setattr(setup.Repository, "of", lambda _: there)
    monkeypatch.setattr("sys.argv", ["offsite", "inventories/prod.py"])
    there.there, there.backups, there.identity = not is_new, [], "r2"
    assert setup.main() == 0
    with patch.object(look, "now", lambda: there.now):
        code, shown = look.looked(cast(Repository, there), ledger)
    assert code == (0 if is_new else 4)
    assert bool([line for line in shown if "gone" in line or "another" in line]) is not is_new
    assert look.load(ledger, there.url).repository == ("r2" if is_new else "r1")


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


def test_what_has_no_manifest_that_can_be_read_stays_and_is_told_of(
    capsys: pytest.CaptureFixture[str], ledger: Path
) -> None:
    others = {"f" * 64: "no JSON", "e" * 64: made(99).to_json()}
    there = pruned_before(InMemory(nightly(QUARTER), others=others), ledger)
    assert pruned(there, ledger) == DONE
    assert there.forgotten
    assert not {*there.forgotten} & {*there.others}
    shown = capsys.readouterr().out
    assert "ffffffff stays, and is no backup" in shown
    assert "eeeeeeee stays, and is no backup" in shown


def test_without_a_repository_it_says_how_to_make_one(ledger: Path) -> None:
    with pytest.raises(RepositoryError, match=r"there is no repository yet\. Next: make offsite"):
        pruned(InMemory(there=False), ledger)


# --- how the repository is made -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "done"),
    [
        (InMemory(there=False), ["init"]),
        (InMemory(), []),
        (InMemory(passwords={OPERATOR: "k1"}), []),
        (InMemory(passwords={DROPLET: "k2"}), []),
    ],
    ids=["no repository", "a second run", "without the droplet's password", "without the operator's"],
)
def test_both_passwords_open_it_whatever_there_was(there: InMemory, done: list[str]) -> None:
    before = {**there.passwords}
    setup.made(cast(Repository, there))
    assert {*there.passwords} == {OPERATOR, DROPLET}
    assert there.verbs == done
    if not done:
        assert before.items() <= there.passwords.items()


@pytest.mark.parametrize("there", [True, False])
def test_whether_it_is_new_is_told(*, there: bool) -> None:
    assert setup.made(cast(Repository, InMemory(there=there))) is not there


def test_one_that_opens_with_neither_password_is_left_alone() -> None:
    with pytest.raises(RepositoryError, match="opens with neither password of the env file"):
        setup.made(cast(Repository, InMemory(passwords={"else": "k3"})))


def test_every_other_password_is_ended_when_that_is_asked() -> None:
    there = InMemory(passwords={OPERATOR: "k1", DROPLET: "k2", "former": "k3"})
    assert setup.revoke_others(cast(Repository, there)) == 1
    assert {*there.passwords} == {OPERATOR, DROPLET}
    assert setup.revoke_others(cast(Repository, there)) == 0


# --- restic at the operator's ---------------------------------------------------------------------------------------


def program(directory: Path, text: str) -> None:
    """A restic of the test's."""
    path = directory / "restic"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = settings_of("prod")
    secrets = {name: f"secret {name}" for name in settings.credentials.offsite}
    return Repository("s3:https://s3.test/bucket", "bot", secrets, ())


def test_restic_gets_the_operator_s_key_and_no_secret_as_an_argument(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$* $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $RESTIC_PASSWORD $RESTIC_REPOSITORY"')
    keys = "secret OFFSITE_OPERATOR_KEY_ID secret OFFSITE_OPERATOR_KEY_SECRET"
    assert ours.restic("check") == f"check {keys} secret OFFSITE_OPERATOR_PASSWORD s3:https://s3.test/bucket\n"
    assert ours.restic("check", opened_by=DROPLET).split(" secret ")[3].startswith("OFFSITE_PASSWORD s3")


def test_a_password_is_handed_over_by_a_pipe(ours: Repository, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program(tmp_path, f'echo "$*" > {seen}; cat "${{!#}}" >> {seen}')
    ours.add_key(DROPLET, opened_by=OPERATOR)
    arguments, password = seen.read_text().splitlines()
    assert password == "secret OFFSITE_PASSWORD"
    assert arguments.startswith("key add --user offsite --host bot --new-password-file /dev/stdin")


@pytest.mark.parametrize(
    ("code", "said", "opens"),
    [(0, "", True), (12, "Fatal: x", False), (1, "Fatal: wrong password or no key found", False)],
)
def test_restic_of_any_version_tells_of_a_wrong_password(
    ours: Repository, tmp_path: Path, code: int, said: str, *, opens: bool
) -> None:
    program(tmp_path, f"echo '{said}' >&2; exit {code}")
    assert ours.opens(DROPLET) == opens


def test_anything_else_that_goes_wrong_is_told(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Fatal: the sky fell' >&2; exit 1")
    for act in (lambda: ours.restic("check"), lambda: ours.opens(DROPLET)):
        with pytest.raises(RepositoryError, match="the sky fell"):
            act()


def test_what_is_no_text_stops_no_look(ours: Repository, tmp_path: Path) -> None:
    """The droplet's key can send any bytes as a manifest."""
    program(tmp_path, r"printf '\xff{}'")
    assert ours.restic("dump", "x", "/y") == "\ufffd{}"


def test_a_manifest_without_an_end_is_one_line(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "exec cat /dev/zero")
    with pytest.raises(RepositoryError, match="restic dump: it printed more than 96 MiB"):
        ours.restic("dump", "x", "/y")


def test_who_has_it_locked_is_told(ours: Repository, tmp_path: Path) -> None:
    """In restic's words before 0.17, and since."""
    for said in ("unable to create lock in backend: repository is already", "Fatal: unable to create lock: already"):
        program(tmp_path, f"echo '{said} locked by PID 7 on bot\nuse unlock' >&2; exit 11")
        with pytest.raises(
            RepositoryError,
            match=r"already locked by PID 7 on bot\. Next: wait until it ends, or half an hour if it was",
        ):
            ours.restic("check")


def test_a_machine_without_restic_is_told_what_to_install(ours: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RepositoryError, match=r"restic is not installed here\. Next: apt-get install restic"):
        ours.restic("check")


def test_restic_that_comes_to_no_end_is_stopped(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Load(x) returned error, retrying after 7s: no route to host' >&2; exec sleep 60")
    with pytest.raises(RepositoryError, match="restic check: no route to host"):
        ours.restic("check", timeout=0.5)


def test_a_file_is_hashed_as_it_comes(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "printf 'abc'")
    found = ours.describe("x", "/y", 3)
    assert (found.bytes, found.sha256[:16]) == (3, "ba7816bf8f01cfea")


def test_a_file_that_can_t_be_read_is_told_with_restic_s_reason_and_nothing_else_is_shown(
    ours: Repository, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What restic says may have an intruder's words in it: who shows the error makes it printable."""
    program(tmp_path, r"printf 'abc'; printf 'Fatal: \x1b[2Jlost\n' >&2; exit 1")
    with pytest.raises(RepositoryError, match="/y of snapshot x can't be read: \x1b\\[2Jlost"):
        ours.describe("x", "/y", 3)
    assert capfd.readouterr() == ("", "")


def test_a_file_without_an_end_is_read_as_far_as_its_manifest_says(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "exec cat /dev/zero")
    for most in (0, 7, 3 << 20):
        assert ours.describe("x", "/y", most).bytes == most + 1


def test_an_authority_of_one_s_own_is_trusted_besides_the_public_ones(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$*"')
    own = Repository(ours.url, ours.app, ours.secrets, ("/ca.crt",))
    assert own.restic("check") == f"--cacert={restic.certifi.where()} --cacert=/ca.crt check\n"


def test_a_place_without_the_operator_s_part_is_told_what_is_missing() -> None:
    settings = settings_of("prod")
    assert Repository.of(settings).url == settings.values.offsite_repository
    with pytest.raises(RepositoryError, match="offsite_repository is None"):
        Repository.of(settings_of("prod", {"offsite_repository": None}))
    droplets = {name: "s" for name in settings.credentials.offsite if "OPERATOR" not in name}
    partial = settings_of("prod")
    object.__setattr__(partial.credentials, "offsite", droplets)
    with pytest.raises(RepositoryError, match=r"\.env\.production lacks OFFSITE_OPERATOR_KEY_ID, "):
        Repository.of(partial)


# --- past restic ----------------------------------------------------------------------------------------------------


@contextmanager
def a_storage(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Its address; it answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"s3:http://127.0.0.1:{server.server_port}/bucket"
    finally:
        server.shutdown()
        server.server_close()


def says(status: int, body: str = "", *, last_modified: str = "") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert "Credential=secret OFFSITE" in handler.headers["authorization"]
        handler.send_response(status)
        if last_modified:
            handler.send_header("Last-Modified", last_modified)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body.encode())

    return answer


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "", "there"),
        (404, "NoSuchKey", "none"),
        (403, "AccessDenied", "the storage refuses OFFSITE_OPERATOR_KEY_ID and OFFSITE_OPERATOR_KEY_SECRET of the env"),
        (500, "InternalError", r"the storage is unwell \(500 InternalError\)"),
        (503, "SlowDown", r"the storage is unwell \(503 SlowDown\)"),
    ],
)
def test_whether_there_is_a_repository_is_asked_past_restic(
    ours: Repository, status: int, code: str, outcome: str
) -> None:
    with a_storage(says(status, f"<Error><Code>{code}</Code></Error>" if code else "")) as url:
        apart = replace(ours, url=url)
        if outcome in {"there", "none"}:
            assert apart.exists(OPERATOR) == (outcome == "there")
            return
        with pytest.raises(RepositoryError, match=outcome):
            apart.exists(OPERATOR)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(503)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"<Error>")


def speaks_no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 ready\r\n")


@pytest.mark.parametrize(
    ("answer", "told"), [(breaks_off, "is unwell"), (speaks_no_http, "the storage can't be reached")]
)
def test_a_storage_that_answers_nonsense_is_one_line(
    ours: Repository, answer: Callable[[BaseHTTPRequestHandler], None], told: str
) -> None:
    with a_storage(answer) as url, pytest.raises(RepositoryError, match=told):
        replace(ours, url=url).exists(OPERATOR)


def test_a_storage_that_nobody_reaches_is_told_of(ours: Repository) -> None:
    with a_storage(says(200)) as url:
        pass
    with pytest.raises(RepositoryError, match="the storage can't be reached"):
        replace(ours, url=url).exists(OPERATOR)
    with pytest.raises(RepositoryError, match="the storage can't be reached"):
        replace(ours, url=url).stored_at("a" * 64)


def test_a_snapshot_s_date_is_the_storage_s(ours: Repository) -> None:
    with a_storage(says(200, last_modified="Sun, 23 Nov 2025 12:00:07 GMT")) as url:
        assert replace(ours, url=url).stored_at("a" * 64) == NOON + timedelta(seconds=7)


@pytest.mark.parametrize(
    ("status", "date"), [(404, ""), (403, "Sun, 23 Nov 2025 12:00:07 GMT"), (200, ""), (200, "yesterday")]
)
def test_a_snapshot_without_a_date_is_not_guessed_at(ours: Repository, status: int, date: str) -> None:
    with (
        a_storage(says(status, last_modified=date)) as url,
        pytest.raises(RepositoryError, match="the storage has no date for snapshot aaaa"),
    ):
        replace(ours, url=url).stored_at("a" * 64)
