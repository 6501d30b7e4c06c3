"""stackctl lists the backups in the off-site storage, and fetches a backup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from stackctl.backup import backup_number, create, manifest, stored
from stackctl.backup.manifest import DUMP, NAME
from stackctl.backup.offsite import download, upload
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.program import TIMED_OUT, Result
from stackctl.services.restic import NO_REPOSITORY
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.manifests import made
from tests.support.offsite_backups import FATAL, TRIED, kept, sent, stack


def test_the_storage_s_backups_are_known_by_their_ids(live: Droplet) -> None:
    assert upload.sent(stack(live)) == set()
    told = [sent(live, number) for number in (1, 2)]
    assert upload.sent(stack(live)) == {one.id for one in told}


def test_the_newest_upload_counts_and_foreign_snapshots_do_not(live: Droplet) -> None:
    told = sent(live, 2)
    sent(live, 1)
    again = upload.upload(stack(live), told, live.paths.backup(told.id))
    for tags, text in (
        (["20251123T000000.000Z"], "no JSON"),
        (["20251123T000001.000Z"], told.to_json()),
        (["by hand"], told.to_json()),
        (None, told.to_json()),
    ):
        number = f"{len(live.storage.snapshots):064x}"
        foreign = {"id": number, "time": "", "tags": tags, "paths": ["/x"], "files": {NAME: text.encode()}}
        live.storage.snapshots.append(foreign)
    found = download.available(stack(live))
    assert [one.sequence for one in found] == [1, 2]
    assert found[1].offsite
    assert found[1].offsite.snapshot == again


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize(
    "ended",
    [
        Result(TIMED_OUT, stderr=f"{TRIED}\ntimed out after 120 s"),
        Result(1, stderr="Fatal: cannot dump file: Load(<data/4f1c>, 591, 0): connection reset by peer"),
        Result(NO_REPOSITORY, stderr=FATAL),
    ],
)
def test_a_storage_that_fails_during_a_read_hides_no_backup(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, ended: Result, first: int
) -> None:
    """A failed read is reported and hides no backup.

    Otherwise, a restore could take the oldest backup for the newest.
    """
    for number in range(1, 4):
        shutil.rmtree(live.paths.backup(sent(live, number).id))
    done = live.storage.restic
    dying = {one["id"] for one in live.storage.snapshots[first:]}

    def dies(arguments: list[str], env: Mapping[str, str]) -> Result:
        return ended if arguments[0] == "dump" and arguments[1] in dying else done(arguments, env)

    with monkeypatch.context() as patched:
        patched.setattr(live.storage, "restic", dies)
        with pytest.raises(FailedError, match=rf"^cannot read 20251123T00000{first + 1}\.000Z \(snapshot 0+\): s3:"):
            download.available(stack(live))
        code, shown = stackctl(live, "restore", "latest", "--from-offsite")
    assert (code, "replace the live data" in shown) == (1, False), shown
    assert backup_number.highest(live.paths) is None
    assert [one.sequence for one in download.available(stack(live))] == [1, 2, 3]
    assert backup_number.highest(live.paths) == 3


@pytest.mark.parametrize(
    "said",
    [
        'Fatal: cannot dump file: path "/opt/backups/x/manifest.json" not found in snapshot',
        'Fatal: cannot dump file: "/opt/backups/x/manifest.json" should be a file, but is a "symlink"',
        'Fatal: cannot dump file: "/opt/backups/x" should be a dir, but is a "file"',
    ],
)
def test_a_snapshot_without_a_manifest_hides_no_backup(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """An intruder on the droplet can add a snapshot without a manifest."""
    told = sent(live)
    foreign = {"id": "f" * 64, "time": "", "tags": ["20251123T000000.000Z"], "paths": ["/opt/backups/x"]}
    live.storage.snapshots.append(foreign)
    done = live.storage.restic

    def without(arguments: list[str], env: Mapping[str, str]) -> Result:
        return Result(1, stderr=said) if "dump" in arguments and foreign["id"] in arguments else done(arguments, env)

    monkeypatch.setattr(live.storage, "restic", without)
    assert [one.id for one in download.available(stack(live))] == [told.id]


@pytest.mark.parametrize("paths", [["--password-command=true"], ["x"], ["/x\0"], ["/x", "/y"], [], None])
def test_a_snapshot_of_another_s_making_is_given_to_restic_as_no_option(paths: list[str] | None) -> None:
    """stackctl ignores a snapshot with a forged path. restic would take `--password-command=…` for an option."""
    ours = {"id": "1", "time": "", "tags": ["20251123T000000.000Z"], "paths": ["/opt/backups/x"]}
    found = stored.snapshots(json.dumps([ours, {**ours, "id": "2", "paths": paths}]))
    assert [one.id for one in found] == ["1"]


def test_a_request_for_one_backup_reads_no_other(live: Droplet) -> None:
    told = [sent(live, number) for number in range(1, 4)]
    live.storage.ran.clear()
    assert [one.manifest.id for one in download.everything(stack(live), told[1].id)] == [told[1].id]
    assert [ran[0] for ran in live.storage.ran] == ["snapshots", "dump"]
    assert backup_number.highest(live.paths) is None, "the storage may have newer backups"


@pytest.mark.parametrize("damaged", [0, 1])
def test_of_two_uploads_the_intact_one_is_fetched(live: Droplet, damaged: int) -> None:
    told = sent(live)
    upload.upload(stack(live), told, live.paths.backup(told.id))
    shutil.rmtree(live.paths.backup(told.id))
    live.storage.snapshots[damaged]["files"][DUMP] = b"something else"
    (there,) = download.available(stack(live))
    create.fetch(stack(live), there)
    (here,) = manifest.every(live.paths.backups)
    assert (here.id, manifest.differing(live.paths.backup(told.id), here)) == (told.id, [])


def test_a_fetched_backup_equals_the_sent_one(live: Droplet, tmp_path: Path) -> None:
    told = sent(live)
    target = tmp_path / told.id
    target.mkdir()
    assert download.fetch(stack(live), told, target) == told
    assert manifest.differing(target, told) == []


def test_a_missing_backup_is_not_fetched(live: Droplet, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"has no copy of the backup 20251123T000000\.000Z"):
        download.fetch(stack(live), made(0), tmp_path)


def test_a_disk_without_room_is_not_filled(live: Droplet) -> None:
    told, directory = kept(live)
    live.bytes_free = SPARE + told.bytes - 1
    with pytest.raises(FailedError, match=r"a download may need 256 MiB\. Next: make room there"):
        upload.upload(stack(live), told, directory)
