"""The right backups are sent to the storage, with the right numbers."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import manifest
from stackctl.backup.offsite import download, upload
from stackctl.core.errors import FailedError
from tests.support.backups import SHRUNK, Sent, every, keep, large, proven, small
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.manifests import made


def test_an_unsent_backup_is_sent_with_the_next_one(live: Droplet, storage: Sent) -> None:
    for number in range(1, 4):
        keep(live, made(number, live.now() - timedelta(days=20 - number)))
    code, shown = stackctl(live, "backup")
    assert (code, "the storage is down" in shown) == (1, True)
    assert [one.sequence for one in proven(live) if not one.offsite] == [1]
    storage.most = 99
    assert stackctl(live, "backup")[0] == 0
    assert [one.offsite.snapshot for one in proven(live) if one.offsite][-1] == "snapshot-4"
    assert all(one.offsite for one in proven(live))
    assert not any(one.offsite for one in every(live) if one.reason == "release")


def test_a_backup_that_the_storage_lost_is_sent_again(live: Droplet, storage: Sent) -> None:
    """stackctl sends a backup again if the storage lost the backup, or if a new repository never had the backup."""
    assert stackctl(live, "backup")[0] == 0
    storage.clear()
    assert stackctl(live, "backup")[0] == 0
    assert {*storage} == {one.id for one in proven(live)}


@pytest.mark.parametrize("number", [2**62, 2**63 - 1])
def test_the_highest_possible_number_leaves_one_for_the_next_backup(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An intruder sent the highest number that a manifest may have. The next backup still gets a number."""
    monkeypatch.setattr(download, "available", lambda _stack: [replace(small(1), sequence=number)])
    droplet = installed(tmp_path)
    for _ in range(2):
        code, shown = stackctl(droplet, "backup")
        assert code == 0, shown
    assert [one.sequence for one in every(droplet)] == [1, 2]


def test_a_droplet_without_backups_goes_on_from_the_number_of_what_was_sent(tmp_path: Path, storage: Sent) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "backup")[0] == 0
    assert [(one.sequence, one.id) for one in every(droplet)] == [(71, storage[0])]


def test_the_first_of_an_empty_droplet_is_compared_with_what_was_sent(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    droplet = installed(tmp_path)
    newest = large(71)
    larger = made(70, files={manifest.DUMP: manifest.File(20_000_000, "0" * 64)})
    there = [larger, newest, small(72, verified=False), small(73, reason="safety")]
    monkeypatch.setattr(download, "available", lambda _stack: there)
    code, shown = stackctl(droplet, "backup", "--nightly")
    assert (code, SHRUNK.format(newest.id) in shown) == (1, True)
    assert [one.id for one in proven(droplet)] == storage, "the small backup must be kept and sent"


def test_a_release_needs_no_storage_that_answers(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release does not ask the storage for the highest number.

    The first backup after the release asks for that number.
    """
    droplet = installed(tmp_path)
    with monkeypatch.context() as down:
        down.setattr(download, "available", lambda _stack: pytest.fail("the release asked the storage"))
        assert stackctl(droplet, "release", "1.0.0")[0] == 0
    assert stackctl(droplet, "backup")[0] == 0
    assert [(one.sequence, one.reason) for one in every(droplet)] == [(1, "release"), (71, "asked")]


def test_the_first_backup_needs_no_storage_that_answers_and_the_next_one_asks_again(
    tmp_path: Path, storage: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_stack: Stack) -> None:
        raise FailedError("the storage can't be reached")

    droplet = installed(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(download, "available", down)
        broken.setattr(upload, "sent", down)
        code, shown = stackctl(droplet, "backup")
    assert (code, "the storage can't be reached" in shown.splitlines()[-1]) == (1, True)
    assert [one.sequence for one in proven(droplet)] == [1]
    assert stackctl(droplet, "backup")[0] == 0
    assert [one.sequence for one in proven(droplet)] == [1, 71]
    assert sorted(storage) == sorted(one.id for one in proven(droplet))


def test_a_backup_removes_the_fetched_files_of_a_killed_upload(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = live.paths.backups / upload.FETCHED
    (fetched / "20251122T000000.000Z").mkdir(parents=True)
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert fetched.exists(), "a fetched backup may be in use"
    monkeypatch.setattr(type(live), "free", lambda *_: 520 << 20 if fetched.exists() else 20 << 30)
    assert stackctl(live, "backup")[0] == 0
    assert not fetched.exists()
