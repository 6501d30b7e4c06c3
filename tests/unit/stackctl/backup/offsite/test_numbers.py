"""After a droplet is restored from a provider's snapshot, its next backups still get the right numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch

import pytest

from stackctl.backup import backup_number, manifest
from stackctl.backup.offsite import download
from stackctl.core.program import Result
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.manifests import NOON
from tests.support.offsite_backups import DAY, asked, dated, nights, planted, stack


@pytest.mark.parametrize("newer", [1, 2, 3])
def test_the_latest_is_the_newest_night_s_after_the_droplet_was_put_back(live: Droplet, newer: int) -> None:
    """The storage has the backups 8 to 15.

    The droplet is put back to the state after backup 10, and an older stackctl continues with number 11.
    """
    nights(live, *range(8, 16))
    for number in range(16, 16 + newer):
        planted(live, dated(number, number - 5), stored=NOON + number * DAY + timedelta(hours=1))
    assert asked(live).id == dated(15 + newer).id
    assert not [one for one in download.everything(stack(live)) if one.doubts]


def put_back(live: Droplet) -> None:
    """Give the storage the backups 8 to 15, and the droplet the backups 8 to 10, as after a provider's snapshot."""
    nights(live, *range(8, 16))
    for number in range(8, 11):
        directory = live.paths.backup(dated(number).id)
        directory.mkdir(parents=True)
        there = live.storage.snapshots[number - 8]["files"]
        for name, content in there.items():
            (directory / name).write_bytes(content)
        manifest.save(directory, replace(manifest.load(directory), offsite=manifest.Offsite(NOON.isoformat(), "1")))
    backup_number.seen(live.paths, 10)


def test_a_droplet_that_was_put_back_continues_the_storage_s_numbers(live: Droplet) -> None:
    """A new backup gets a higher number than every backup in the storage, so it is the newest in both places."""
    put_back(live)
    for day, number in ((16, 16), (17, 17)):
        live.seconds = (day * DAY).total_seconds()
        code, shown = stackctl(live, "backup")
        assert code == 0, shown
        assert ("unsent backups get higher numbers" in shown) == (day == 16)
        here = manifest.every(live.paths.backups)[-1]
        assert (here.sequence, here.offsite is not None) == (number, True)
        assert asked(live).id == here.id
        assert download.everything(stack(live))[-1].manifest.sequence == number
    assert backup_number.highest(live.paths) == 15
    read = [arguments for arguments in live.storage.ran if arguments[0] == "dump" and "--no-cache" not in arguments]
    live.storage.ran.clear()
    live.seconds += DAY.total_seconds()
    assert stackctl(live, "backup")[0] == 0
    fetched = [arguments for arguments in live.storage.ran if arguments[0] == "dump"]
    assert all("--no-cache" in arguments for arguments in fetched), "a known manifest was read again"
    assert read


def test_a_first_night_that_could_not_be_sent_is_numbered_by_the_next(live: Droplet) -> None:
    put_back(live)
    live.seconds = (16 * DAY).total_seconds()
    live.storage.down = True
    assert stackctl(live, "backup")[0] == 1
    live.storage.down = False
    live.seconds += DAY.total_seconds()
    code, shown = stackctl(live, "backup")
    assert code == 0, shown
    assert [one.sequence for one in manifest.every(live.paths.backups)][-2:] == [16, 17]


def test_a_damaged_lost_night_does_not_stop_the_next_backup(live: Droplet) -> None:
    put_back(live)
    live.seconds = (16 * DAY).total_seconds()
    done = live.storage.restic
    damaged = live.storage.snapshots[-1]["id"]

    def fails(arguments: list[str], env: Mapping[str, str]) -> Result:
        broken = arguments[0] == "dump" and arguments[1] == damaged
        return Result(1, stderr="Fatal: ciphertext verification failed") if broken else done(arguments, env)

    with patch.object(live.storage, "restic", fails):
        code, shown = stackctl(live, "backup")
    assert (code, "cannot read the backup numbers in the storage" in shown) == (0, True), shown
    assert asked(live).id == manifest.every(live.paths.backups)[-1].id, "the newest backup by time was not chosen"


def test_a_forgery_moves_no_number_of_ours(live: Droplet) -> None:
    put_back(live)
    planted(live, replace(dated(15, 10**6), id="20251208T120000.001Z"), stored=NOON + 15 * DAY)
    live.seconds = (16 * DAY).total_seconds()
    assert stackctl(live, "backup")[0] == 0
    assert manifest.every(live.paths.backups)[-1].sequence == 16
