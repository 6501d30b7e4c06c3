"""An intruder sends forged, ambiguous and late snapshots. A restore never chooses such a snapshot by itself."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stackctl.backup import backup_number
from stackctl.backup.manifest import DUMP
from stackctl.backup.offsite import download, upload
from stackctl.core.errors import FailedError, RefusedError
from stackctl.restore.run import Request
from tests.support.fakes.droplet import PARSER, Droplet, stackctl
from tests.support.manifests import NOON, made
from tests.support.offsite_backups import DAY, asked, dated, kept, nights, planted, sent, stack


def test_two_that_differ_under_one_id_are_ambiguous_and_named_with_the_storage_s_dates(live: Droplet) -> None:
    nights(live, 1, 2)
    real = dated(2)
    shadow = planted(live, replace(real, tables={"public.offers": 666}), stored=NOON + 9 * DAY)
    live.storage.snapshots[-1]["time"] = "2025-11-25T12:00:00Z"  # `restic backup --time` sets this date
    with pytest.raises(RefusedError) as caught:
        asked(live, real.id)
    said = str(caught.value)
    assert f"{real.id} is ambiguous" in said
    assert "(snapshot 00000001, stored 2025-11-25 13:00 UTC)" in said
    assert "(snapshot 00000002, stored 2025-12-02 12:00 UTC)" in said
    assert f"restore {real.id} --from-offsite --snapshot SNAPSHOT" in said
    assert asked(live, real.id, "00000001").tables == real.tables
    assert asked(live, real.id, shadow).tables == {"public.offers": 666}
    with pytest.raises(RefusedError, match="it is in doubt which backup is the latest"):
        asked(live)


@pytest.mark.parametrize(
    ("wanted", "snapshot", "says"),
    [
        ("latest", "00000000", "needs a backup ID"),
        ("20251124T120000.000Z", "0000", "at least 8 characters"),
        ("20251124T120000.000Z", "--no-lock", "at least 8 characters"),
        (
            "20251124T120000.000Z",
            "00000001",
            "0 snapshots of 20251124T120000.000Z have an ID that begins with 00000001",
        ),
        ("20251129T120000.000Z", None, "the storage has no backup 20251129T120000.000Z"),
        ("--help", None, "there is no off-site backup '--help'"),
    ],
)
def test_a_choice_must_name_the_backup_and_one_of_its_snapshots(
    live: Droplet, wanted: str, snapshot: str | None, says: str
) -> None:
    nights(live, 1, 2)
    with pytest.raises(RefusedError, match=says):
        asked(live, wanted, snapshot)


def test_a_person_s_choice_is_fetched_and_no_other(live: Droplet) -> None:
    told = sent(live)
    shutil.rmtree(live.paths.backup(told.id))
    shadow = planted(live, replace(told, tables={}), dump="forged")
    code, shown = stackctl(live, "restore", told.id, "--from-offsite", "--to-database", "beside")
    assert (code, "is ambiguous" in shown) == (2, True), shown
    first = live.storage.snapshots[0]
    for snapshot, dump in ((first["id"], first["files"][DUMP].decode()), (shadow, "forged")):
        target = live.paths.backups / "target" / told.id
        target.mkdir(parents=True)
        download.fetch(stack(live), asked(live, told.id, snapshot[:12]), target)
        assert (target / DUMP).read_text() == dump
        shutil.rmtree(target.parent)


def test_a_person_s_choice_reaches_the_unit(live: Droplet) -> None:
    words = Request("20251124T120000.000Z", from_offsite=True, snapshot="0123456789").words
    assert words == ["20251124T120000.000Z", "--from-offsite", "--snapshot", "0123456789"]
    assert PARSER.parse_args(["restore", *words]).snapshot == "0123456789"
    code, shown = stackctl(live, "restore", "20251124T120000.000Z", "--snapshot", "0123456789", "--to-database", "x")
    assert (code, "add --from-offsite" in shown) == (2, True), shown


def test_an_intact_one_here_is_never_replaced(live: Droplet) -> None:
    told = sent(live)
    shadow = planted(live, replace(told, tables={}), dump="forged")
    assert asked(live, told.id).tables == told.tables, "the restore must use the backup on the droplet"
    with pytest.raises(RefusedError, match="is intact and differs from snapshot 00000001"):
        asked(live, told.id, shadow)
    assert (live.paths.backup(told.id) / DUMP).read_bytes() == live.storage.snapshots[0]["files"][DUMP]
    (live.paths.backup(told.id) / DUMP).write_text("damaged")
    with pytest.raises(RefusedError, match="is ambiguous"):
        asked(live, told.id)


def test_the_latest_off_the_droplet_replaces_no_intact_one_here(live: Droplet) -> None:
    told, _ = kept(live)
    planted(live, replace(told, tables={}), dump="forged")
    assert asked(live).tables == told.tables


@pytest.mark.parametrize("copied", ["by stackctl", "by an intruder, damaged"])
def test_copies_are_no_ambiguity(live: Droplet, copied: str, tmp_path: Path) -> None:
    told = sent(live)
    if copied == "by stackctl":
        upload.upload(stack(live), told, live.paths.backup(told.id))
    else:
        first = live.storage.snapshots[0]
        files = {**first["files"], DUMP: b"no dump"}
        live.storage.snapshots.append({**first, "id": "e" * 64, "files": files, "stored": NOON + 30 * DAY})
    shutil.rmtree(live.paths.backup(told.id))
    for wanted in (told.id, "latest"):
        target = tmp_path / wanted / told.id
        target.mkdir(parents=True)
        download.fetch(stack(live), asked(live, wanted), target)
        assert (target / DUMP).read_bytes() == live.storage.snapshots[0]["files"][DUMP]


FORGED = {
    "dates in 2027": [(datetime(2027, month, 1, tzinfo=UTC), 100000 + month) for month in range(1, 8)],
    "the next hours": [(NOON + 9 * DAY + timedelta(hours=3 + n), 20 + n) for n in range(7)],
    "dates of long ago": [(NOON - month * 30 * DAY, 100000 + month) for month in range(1, 8)],
    "numbers that jump": [(NOON + 9 * DAY + timedelta(hours=1), 10**6)],
}
"""The dates and numbers of the forged manifests. The intruder sends all of them an hour after the ninth backup."""


@pytest.mark.parametrize("how", FORGED)
def test_the_latest_is_no_forgery(live: Droplet, how: str) -> None:
    """A forgery that claims to be newer makes stackctl refuse `latest`, until the next night's backup."""
    nights(live, *range(1, 10))
    for at, number in FORGED[how]:
        told = replace(made(number, at), id=f"{at:%Y%m%dT%H%M%S}.001Z")
        planted(live, told, dump="forged", stored=NOON + 9 * DAY + timedelta(hours=2))
    if how == "dates of long ago":
        assert asked(live).id == dated(9).id
    else:
        with pytest.raises(
            RefusedError, match=f"the latest: .*The newest backup that is not in doubt is {dated(9).id}"
        ):
            asked(live)
    nights(live, 10)
    assert asked(live).id == dated(10).id
    shown = stackctl(live, "check-offsite")[1]
    doubted = {line.split()[0] for line in shown.splitlines() if "is in doubt" in line}
    assert doubted == {f"{at:%Y%m%dT%H%M%S}.001Z" for at, _ in FORGED[how]}


def test_a_forgery_s_number_is_not_followed(live: Droplet) -> None:
    """No forged number counts, even for a droplet that has no counter and reads the numbers in the storage."""
    nights(live, 1, 2)
    planted(live, replace(dated(3, 10**6)), stored=NOON + 2 * DAY)
    assert [one.sequence for one in download.available(stack(live))] == [1, 2]
    assert backup_number.highest(live.paths) == 2


def test_a_backup_that_was_sent_late_is_in_doubt_and_blocks_nothing(live: Droplet) -> None:
    nights(live, 1)
    late = NOON + 5 * DAY + timedelta(hours=1)
    for number in (5, 4, 3, 2):  # after an outage, the newest is uploaded first
        planted(live, dated(number), stored=late)
    assert asked(live).id == dated(5).id
    assert asked(live, dated(3).id).id == dated(3).id
    doubts = {one.manifest.id: one.doubts for one in download.everything(stack(live))}
    assert [name for name, found in doubts.items() if found] == [dated(2).id, dated(3).id, dated(4).id]
    assert doubts[dated(2).id] == (
        "its manifest says 2025-11-25 12:00, but the storage received the backup 3 days later",
    )


def test_a_hundred_releases_a_day_are_no_jump(live: Droplet) -> None:
    for number in range(1, 30):
        planted(live, dated(number, 90 * number), stored=NOON + number * DAY)
    planted(live, dated(60, 90 * 60), stored=NOON + 60 * DAY)
    assert not [one for one in download.everything(stack(live)) if one.doubts]


def test_check_offsite_shows_every_snapshot_with_the_storage_s_date(live: Droplet) -> None:
    nights(live, 1, 2)
    planted(live, replace(dated(2), tables={}), stored=NOON + 9 * DAY)
    code, shown = stackctl(live, "check-offsite")
    assert code == 0
    lines = shown.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith(dated(2).id) and "doubt" not in line] == [
        [dated(2).id, "2025-12-02", "12:00"],
        [dated(2).id, "2025-11-25", "13:00"],
    ]
    twin = r"\(snapshot 00000001, stored 2025-11-25 13:00 UTC\) is in doubt: snapshot \w+ has the same backup ID"
    assert re.search(f"{dated(2).id} {twin}", shown), shown
    document = json.loads(stackctl(live, "check-offsite", "--json")[1])
    assert [len(one["doubts"]) for one in document["backups"]] == [0, 1, 2]
    assert document["backups"][0]["offsite"] == {"at": "2025-11-24T13:00:00+00:00", "snapshot": "00000000" + "f" * 56}


def test_a_snapshot_whose_date_can_t_be_had_hides_nothing(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    nights(live, 1, 2)
    monkeypatch.setattr(live.storage, "head", lambda *_: (503, "Sun, 23 Nov 2025 12:00:07 GMT"))
    with pytest.raises(FailedError, match=r"cannot read the date of snapshot 00000000 \(503\)"):
        download.everything(stack(live))
