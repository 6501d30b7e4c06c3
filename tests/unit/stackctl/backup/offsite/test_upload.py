"""After an upload, stackctl fetches the backup again and compares it. A forged snapshot cannot fill the disk."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import create, manifest
from stackctl.backup.manifest import DUMP, NAME
from stackctl.backup.offsite import download, repository, upload
from stackctl.backup.stored import Snapshot
from stackctl.core import config
from stackctl.core.errors import FailedError
from stackctl.core.events import RunLog
from stackctl.core.machine import Machine
from stackctl.core.program import ENVIRONMENT
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.manifests import made
from tests.support.offsite_backups import kept, sent, stack


def test_what_is_sent_is_known_by_its_snapshot_and_nothing_of_the_proof_is_left(live: Droplet) -> None:
    told, directory = kept(live)
    snapshot = upload.upload(stack(live), told, directory)
    (there,) = download.available(stack(live))
    assert there.offsite
    assert (there.id, there.files, there.offsite.snapshot) == (told.id, told.files, snapshot)
    assert [path.name for path in live.paths.backups.iterdir()] == [told.id]


def test_a_backup_goes_off_the_droplet_and_its_manifest_says_so(live: Droplet) -> None:
    code, shown = stackctl(live, "backup")
    assert code == 0, shown
    (one,) = manifest.every(live.paths.backups)
    assert one.offsite
    assert one.offsite.snapshot == live.storage.snapshots[0]["id"]
    assert [name for name in create.BACKUP if name.name == "upload"]


@pytest.mark.parametrize("file", [DUMP, NAME])
def test_an_upload_that_comes_back_damaged_does_not_count(live: Droplet, file: str) -> None:
    told, directory = kept(live)
    live.storage.damaged = file
    with pytest.raises(FailedError):
        upload.upload(stack(live), told, directory)
    assert [path.name for path in live.paths.backups.iterdir()] == [told.id]


def test_the_damaged_file_is_named(live: Droplet) -> None:
    told, directory = kept(live)
    live.storage.damaged = DUMP
    with pytest.raises(
        FailedError, match=f"{told.id} is damaged in the storage: {DUMP} was changed since it was written"
    ):
        upload.upload(stack(live), told, directory)


def test_a_file_that_the_manifest_does_not_list_is_not_fetched(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    told, directory = kept(live)
    done = live.storage._backup

    def more(place: Path, tag: str, host: str) -> str:
        said = done(place, tag, host)
        live.storage.snapshots[-1]["files"]["redis.rdb"] = b"unasked"
        return said

    monkeypatch.setattr(live.storage, "_backup", more)
    upload.upload(stack(live), told, directory)
    fetched = [Path(arguments[2]).name for arguments in live.storage.ran if arguments[0] == "dump"]
    assert fetched == [NAME, *told.files]
    assert "restore" not in {arguments[0] for arguments in live.storage.ran}


HOSTILE = {
    "a dump without an end": (f"*{DUMP}*) exec cat /dev/zero;;", f"{DUMP} has more than the .* bytes expected"),
    "a dump a byte too long": (
        f"*{DUMP}*) dd status=none if={{sent}}/{DUMP}; exec printf x;;",
        f"{DUMP} has more than the .* bytes expected",
    ),
    "a manifest without an end": (f"*{NAME}*) exec cat /dev/zero;;", f"{NAME} has more than the .* bytes expected"),
    "a dump that is too short": (f"*{DUMP}*) exec printf x;;", f"{DUMP} has 1 bytes, but the manifest says"),
    "no dump": (
        f"*{DUMP}*) echo 'Fatal: cannot dump file: no' >&2; exit 1;;",
        "restic dump failed: cannot dump file: no",
    ),
}
"""restic's behaviour when stackctl fetches a file, and stackctl's message."""


@pytest.mark.parametrize("how", HOSTILE)
def test_no_file_becomes_larger_than_its_manifest_says(
    live: Droplet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A forged snapshot may have any size, and a full disk stops PostgreSQL."""
    told, sent_from = kept(live)
    program, says = HOSTILE[how]
    monkeypatch.setattr(manifest, "LONGEST", 1 << 20)
    whole = f'exec dd status=none if="{sent_from}/${{3##*/}}"'
    restic = tmp_path / "restic"
    restic.write_text(f'#!/bin/bash\ncase "$3" in {program.format(sent=sent_from)}\n*) {whole};;\nesac\n')
    restic.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    target = tmp_path / told.id
    target.mkdir()
    real = Stack(live.paths, config.load(live.paths), Machine(), RunLog(None, "backup", live, StringIO()))
    snapshot = Snapshot("0" * 64, "", told.id, str(sent_from))
    with pytest.raises(FailedError, match=says):
        repository.Repository(real).restore(snapshot, told, target)
    for path in target.iterdir():
        assert path.stat().st_size <= (1 << 20 if path.name == NAME else told.files[path.name].bytes)
    restic.write_text(f"#!/bin/bash\n{whole}\n")
    assert repository.Repository(real).restore(snapshot, told, target) == told


def test_a_locally_damaged_backup_is_not_sent(live: Droplet) -> None:
    told, directory = kept(live)
    (directory / DUMP).write_text("a dump, numbed 1")
    with pytest.raises(
        FailedError, match=f"{told.id} was changed after it was written: {DUMP} .*, then remove {directory}"
    ):
        upload.upload(stack(live), told, directory)
    assert live.storage.snapshots == []


def test_a_manifest_that_was_exchanged_there_is_found(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    told, directory = kept(live)
    other = made(1, files=told.files, tables={"public.offers": 11})
    done = live.storage._backup

    def exchanged(place: Path, tag: str, host: str) -> str:
        said = done(place, tag, host)
        live.storage.snapshots[-1]["files"][NAME] = other.to_json().encode()
        return said

    monkeypatch.setattr(live.storage, "_backup", exchanged)
    with pytest.raises(FailedError, match=r"the manifest\.json in the storage differs from the manifest that was sent"):
        upload.upload(stack(live), told, directory)


def test_leftovers_of_a_killed_verification_do_not_matter(live: Droplet) -> None:
    leftover = live.paths.backups / upload.FETCHED / "20251122T000000.000Z"
    leftover.mkdir(parents=True)
    told = sent(live)
    assert [path.name for path in live.paths.backups.iterdir()] == [told.id]


@pytest.mark.parametrize("breaks", ["its comparison fails", "it is killed meanwhile"])
def test_an_upload_that_was_not_compared_is_sent_and_compared_again(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    with monkeypatch.context() as patched:
        if breaks == "its comparison fails":
            live.storage.damaged = DUMP
        else:
            patched.setattr(repository.Repository, "restore", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert stackctl(live, "backup")[0] == 1
    (one,) = manifest.every(live.paths.backups)
    assert (one.offsite, upload.sent(stack(live))) == (None, {one.id})
    live.storage.damaged = ""
    live.seconds += 1
    code, shown = stackctl(live, "backup")
    assert (code, "backups sent: 2" in shown) == (0, True), shown
    there = [one.offsite.snapshot for one in manifest.every(live.paths.backups) if one.offsite]
    assert there == [live.storage.snapshots[at]["id"] for at in (2, 1)], "the newer backup must be sent first"


def test_a_fetched_backup_is_not_sent_again(live: Droplet) -> None:
    told = sent(live)
    shutil.rmtree(live.paths.backup(told.id))
    (there,) = download.available(stack(live))
    create.fetch(stack(live), there)
    code, shown = stackctl(live, "backup")
    assert (code, "backups sent: 1" in shown) == (0, True), shown


def test_a_new_droplet_that_restores_an_older_one_counts_on_from_the_newest(live: Droplet) -> None:
    for number in range(1, 8):
        shutil.rmtree(live.paths.backup(sent(live, number).id))
    create.fetch(stack(live), download.available(stack(live))[1])
    assert stackctl(live, "backup")[0] == 0
    assert [one.sequence for one in manifest.every(live.paths.backups)] == [2, 8]
    assert download.available(stack(live))[-1].sequence == 8
