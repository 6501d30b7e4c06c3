"""Backups off a droplet in memory: what is sent is fetched again, and a failure names its cause and the next step."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stackctl.app.stack import Stack
from stackctl.backup import backup_number, create, manifest, stored
from stackctl.backup.manifest import DUMP, NAME, Manifest
from stackctl.backup.offsite import access, download, repository, upload
from stackctl.backup.offsite.access import Powers
from stackctl.backup.offsite.repository import LOCKED_S
from stackctl.backup.stored import Snapshot
from stackctl.core import config, durable
from stackctl.core.disk import SPARE
from stackctl.core.errors import FailedError, RefusedError
from stackctl.core.events import Journal
from stackctl.core.machine import Machine
from stackctl.core.program import ENVIRONMENT, TIMED_OUT, Result
from stackctl.restore.run import Request
from stackctl.services import s3
from stackctl.services.restic import LOCKED, NO_REPOSITORY
from tests.support.fakes.droplet import PARSER, Droplet, installed, stackctl
from tests.support.fakes.restic import ACCESS, REPOSITORY, SECRETS, Storage, reached
from tests.support.manifests import NOON, made

FATAL = "Fatal: unable to open config file: context canceled\nIs there a repository at the following location?\ns3:x"
TRIED = "Stat(<config/>) returned error, retrying after 1.4s: dial tcp 10.0.0.1:9000: connect: connection refused"
LATER = TRIED.replace("1.4s", "2m3.5s").replace("refused", "reset by peer")


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    live = installed(tmp_path)
    reached(live.paths)
    return live


def stack(live: Droplet) -> Stack:
    paths = live.paths
    return Stack(paths, config.load(paths), live, Journal(None, "backup", live, StringIO()))


def kept(live: Droplet, sequence: int = 1, **more: Any) -> tuple[Manifest, Path]:
    """A whole backup on the live."""
    told = made(sequence, **more)
    directory = live.paths.backup(told.id)
    directory.mkdir(parents=True)
    for name in told.files:
        (directory / name).write_text(json.dumps(told.tables) + " " * sequence)
    told = made(sequence, **{"files": {name: manifest.describe(directory / name) for name in told.files}, **more})
    manifest.save(directory, told)
    return told, directory


def sent(live: Droplet, sequence: int = 1, **more: Any) -> Manifest:
    told, directory = kept(live, sequence, **more)
    upload.upload(stack(live), told, directory)
    return told


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
def test_what_comes_back_damaged_was_not_sent(live: Droplet, file: str) -> None:
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


def test_what_its_manifest_does_not_name_is_not_fetched(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
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
    "no dump": (f"*{DUMP}*) echo 'Fatal: cannot dump file: no' >&2; exit 1;;", "restic dump: cannot dump file: no"),
}
"""What restic does when a file is asked for, and what is said then."""


@pytest.mark.parametrize("how", HOSTILE)
def test_of_no_file_more_is_written_than_its_manifest_says(
    live: Droplet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A forged snapshot may have any size: a full disk stops PostgreSQL."""
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
    real = Stack(live.paths, config.load(live.paths), Machine(), Journal(None, "backup", live, StringIO()))
    snapshot = Snapshot("0" * 64, "", told.id, str(sent_from))
    with pytest.raises(FailedError, match=says):
        repository.Repository(real).restore(snapshot, told, target)
    for path in target.iterdir():
        assert path.stat().st_size <= (1 << 20 if path.name == NAME else told.files[path.name].bytes)
    restic.write_text(f"#!/bin/bash\n{whole}\n")
    assert repository.Repository(real).restore(snapshot, told, target) == told


def test_what_was_damaged_here_is_not_sent_and_the_storage_not_blamed(live: Droplet) -> None:
    told, directory = kept(live)
    (directory / DUMP).write_text("a dump, numbed 1")
    with pytest.raises(
        FailedError, match=f"{told.id} is no longer what was written: {DUMP} .*, then remove {directory}"
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
    with pytest.raises(FailedError, match=r"the manifest\.json in the storage differs from the one that was sent"):
        upload.upload(stack(live), told, directory)


def test_what_a_killed_proof_left_is_no_hindrance(live: Droplet) -> None:
    leftover = live.paths.backups / upload.FETCHED / "20251122T000000.000Z"
    leftover.mkdir(parents=True)
    told = sent(live)
    assert [path.name for path in live.paths.backups.iterdir()] == [told.id]


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ({"down": True}, r"cannot be reached \(Connection refused\)\. Next: .* sudo stackctl backup"),
        ({"answers": (404, "NoSuchBucket")},
         "there is no such bucket. Next: make offsite, or correct offsite_repository"),
        ({"answers": (404, "NoSuchKey")}, "there is no such repository. Next: make offsite"),
        ({"answers": (403, "SignatureDoesNotMatch")},
         r"refuses the droplet's key \(403 SignatureDoesNotMatch\)\. Next: correct"),
        ({"answers": (403, "RequestTimeTooSkewed")}, "the clocks of the droplet and the storage differ. Next: timed"),
        ({"answers": (503, "")}, r"the storage returned an error \(503\)"),
        ({"password": "another"}, "does not open with the droplet's password. Next: make offsite"),
        ({"failing": {"backup": Result(NO_REPOSITORY, stderr="Fatal: x")}}, "there is no such repository"),
        ({"failing": {"backup": Result(127, stderr="restic is not installed")}},
         "restic is not installed. Next: make site"),
        ({"failing": {"backup": Result(TIMED_OUT, stderr=f"{TRIED}\n{LATER}\ntimed out after 120 s")}},
         r"timed out \(dial tcp 10.0.0.1:9000: connect: connection reset by peer\)"),
        ({"failing": {"backup": Result(1, stderr=f"{TRIED}\n{FATAL}")}}, "restic backup: unable to open config file"),
        ({"failing": {"backup": Result(1, stderr='{"message_type":"exit_error","message":"Fatal: no room there"}')}},
         "restic backup: no room there. Next: when sudo stackctl offsite succeeds"),
        ({"failing": {"backup": Result(0)}}, "restic returned no snapshot ID"),
        ({"failing": {"backup": Result(0, "snapshot saved")}}, "restic returned no snapshot ID"),
    ],
)  # fmt: skip
def test_a_failure_names_its_cause_and_the_next_step(live: Droplet, breaks: dict[str, Any], says: str) -> None:
    told, directory = kept(live)
    live.storage = Storage(**breaks)
    with pytest.raises(FailedError, match=says):
        upload.upload(stack(live), told, directory)
    assert [path.name for path in live.paths.backups.iterdir()] == [told.id]


def test_a_storage_that_does_not_answer_is_not_left_to_restic(live: Droplet) -> None:
    """Which would try it for a quarter of an hour."""
    told, directory = kept(live)
    live.storage.down = True
    with pytest.raises(FailedError):
        upload.upload(stack(live), told, directory)
    assert live.storage.ran == []


def test_what_is_about_to_be_sent_does_not_stand_in_memory(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is a file system in it."""
    used, done = set[str](), live.storage.restic

    def looked_at(arguments: list[str], env: Mapping[str, str]) -> Result:
        used.add(env["TMPDIR"])
        return done(arguments, env)

    monkeypatch.setattr(live.storage, "restic", looked_at)
    sent(live)
    assert used == {str(live.paths.offsite_cache)}
    assert live.paths.offsite_cache.stat().st_mode & 0o777 == 0o700


def test_no_failure_shows_a_secret(live: Droplet) -> None:
    told, directory = kept(live)
    live.storage.failing["backup"] = Result(1, stderr=f"Fatal: {' and '.join(SECRETS.values())} are no good")
    with pytest.raises(FailedError, match=r"\*\*\* and \*\*\* and \*\*\* are no good"):
        upload.upload(stack(live), told, directory)


def test_no_secret_is_in_a_repr(live: Droplet) -> None:
    shown = repr(access.load(live.paths)) + repr(access.load(live.paths).key)
    assert not [secret for secret in SECRETS.values() if secret in shown]


def test_a_lock_is_waited_for_and_a_stale_one_taken_away(live: Droplet) -> None:
    told, directory = kept(live)
    live.storage.locks = 2
    upload.upload(stack(live), told, directory)
    tried = ["unlock", "backup", "unlock", "backup", "unlock", "backup"]
    assert [arguments[0] for arguments in live.storage.ran][:6] == tried


def test_a_lock_that_stays_is_not_waited_for_for_ever(live: Droplet) -> None:
    told, directory = kept(live)
    live.storage.locks = 10**6
    began = live.seconds
    with pytest.raises(FailedError, match=r"is locked \(.*locked by PID 7.*\)\. Next: when make prune has ended"):
        upload.upload(stack(live), told, directory)
    assert LOCKED_S < live.seconds - began < 2 * LOCKED_S
    assert LOCKED == 11


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("overwrites", [True, False])
@pytest.mark.parametrize("before", [None, b"2025-11-22 2\n"])
def test_what_the_key_may_do_is_tried(
    live: Droplet,
    *,
    deletes: bool,
    overwrites: bool,
    before: bytes | None,
) -> None:
    """Whatever a former try left."""
    live.storage.deletes, live.storage.overwrites = deletes, overwrites
    if before:
        live.storage.objects[repository.PROBE] = before
    sent(live)
    found = access.powers(live.paths)
    assert found
    assert (found.deletes, found.overwrites) == (deletes, overwrites)
    assert live.storage.objects["config"] == b"of restic"


def test_on_a_full_disk_it_is_told_all_the_same_what_lies_there(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    told = sent(live)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    code, shown = stackctl(live, "offsite")
    assert (code, told.id in shown) == (0, True), shown


def test_a_key_that_can_t_add_is_not_one_that_can_delete(live: Droplet) -> None:
    live.storage.takes = False
    code, shown = stackctl(live, "offsite")
    assert (code, "the droplet's key cannot add anything (403 AccessDenied). Next: let it write" in shown) == (1, True)
    assert access.powers(live.paths) is None


def test_nothing_is_said_of_a_key_that_was_not_tried(live: Droplet) -> None:
    assert access.powers(live.paths) is None
    assert access.problems(live.paths, "production") == []


@pytest.mark.parametrize(
    ("powers", "append_only", "says"),
    [
        (Powers("now", deletes=False, overwrites=False), True, ""),
        (Powers("now", deletes=True, overwrites=True), False, ""),
        (
            Powers("now", deletes=True, overwrites=False),
            True,
            "key can delete existing objects, although offsite_append",
        ),
        (Powers("now", deletes=False, overwrites=True), True, "key can overwrite existing objects"),
        (Powers("now", deletes=True, overwrites=True), True, "key can delete and overwrite existing objects"),
    ],
)
def test_status_tells_when_the_key_may_do_more_than_it_was_said_to(
    live: Droplet,
    powers: Powers,
    *,
    append_only: bool,
    says: str,
) -> None:
    reached(live.paths, append_only=append_only)
    live.paths.offsite_powers.write_text(json.dumps(powers.__dict__))
    found = access.problems(live.paths, "production")
    assert [says in line for line in found] == ([True] if says else [])


@pytest.mark.parametrize(("where", "told"), [("production", True), ("staging", False), ("lab", False)])
def test_production_without_a_way_off_the_droplet_is_told_of(tmp_path: Path, where: str, *, told: bool) -> None:
    live = installed(tmp_path, environment=where)
    problems = json.loads(stackctl(live, "status", "--json")[1])["problems"]
    assert any("no backup is sent off this droplet. Next: set offsite_repository" in line for line in problems) == told


def test_what_lies_there_is_known_by_its_ids(live: Droplet) -> None:
    assert upload.sent(stack(live)) == set()
    told = [sent(live, number) for number in (1, 2)]
    assert upload.sent(stack(live)) == {one.id for one in told}


def test_of_what_was_sent_twice_the_newest_counts_and_the_unreadable_is_none(live: Droplet) -> None:
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
def test_a_storage_that_dies_amid_the_reading_hides_nothing(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, ended: Result, first: int
) -> None:
    """The oldest would be taken for the newest, by a restore and by what numbers the next one."""
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
    assert (code, "give way" in shown) == (1, False), shown
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
    """Whoever broke in can add one."""
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
    """restic runs what --password-command says, wherever among its arguments it stands."""
    ours = {"id": "1", "time": "", "tags": ["20251123T000000.000Z"], "paths": ["/opt/backups/x"]}
    found = stored.snapshots(json.dumps([ours, {**ours, "id": "2", "paths": paths}]))
    assert [one.id for one in found] == ["1"]


def test_where_one_is_asked_for_no_other_one_is_read(live: Droplet) -> None:
    told = [sent(live, number) for number in range(1, 4)]
    live.storage.ran.clear()
    assert [one.manifest.id for one in download.everything(stack(live), told[1].id)] == [told[1].id]
    assert [ran[0] for ran in live.storage.ran] == ["snapshots", "dump"]
    assert backup_number.highest(live.paths) is None, "there may be newer ones"


@pytest.mark.parametrize("breaks", ["its comparison fails", "it is killed amid it"])
def test_what_was_not_found_to_be_whole_there_is_sent_and_compared_again(
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
    assert (code, "2 sent" in shown) == (0, True), shown
    there = [one.offsite.snapshot for one in manifest.every(live.paths.backups) if one.offsite]
    assert there == [live.storage.snapshots[at]["id"] for at in (2, 1)], "the newer one goes first"


def test_what_was_fetched_is_not_sent_again(live: Droplet) -> None:
    told = sent(live)
    shutil.rmtree(live.paths.backup(told.id))
    (there,) = download.available(stack(live))
    create.fetch(stack(live), there)
    code, shown = stackctl(live, "backup")
    assert (code, "1 sent" in shown) == (0, True), shown


def test_a_new_droplet_that_restores_an_older_one_counts_on_from_the_newest(live: Droplet) -> None:
    for number in range(1, 8):
        shutil.rmtree(live.paths.backup(sent(live, number).id))
    create.fetch(stack(live), download.available(stack(live))[1])
    assert stackctl(live, "backup")[0] == 0
    assert [one.sequence for one in manifest.every(live.paths.backups)] == [2, 8]
    assert download.available(stack(live))[-1].sequence == 8


@pytest.mark.parametrize("damaged", [0, 1])
def test_of_what_was_sent_twice_the_whole_one_is_fetched(live: Droplet, damaged: int) -> None:
    told = sent(live)
    upload.upload(stack(live), told, live.paths.backup(told.id))
    shutil.rmtree(live.paths.backup(told.id))
    live.storage.snapshots[damaged]["files"][DUMP] = b"something else"
    (there,) = download.available(stack(live))
    create.fetch(stack(live), there)
    (here,) = manifest.every(live.paths.backups)
    assert (here.id, manifest.differing(live.paths.backup(told.id), here)) == (told.id, [])


def test_what_is_fetched_is_what_was_sent(live: Droplet, tmp_path: Path) -> None:
    told = sent(live)
    target = tmp_path / told.id
    target.mkdir()
    assert download.fetch(stack(live), told, target) == told
    assert manifest.differing(target, told) == []


def test_what_does_not_lie_there_is_not_fetched(live: Droplet, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"has no such backup 20251123T000000\.000Z"):
        download.fetch(stack(live), made(0), tmp_path)


def test_a_disk_without_room_is_not_filled(live: Droplet) -> None:
    told, directory = kept(live)
    live.bytes_free = SPARE + told.bytes - 1
    with pytest.raises(FailedError, match="a download may need 256: make room there"):
        upload.upload(stack(live), told, directory)


def test_an_isolated_droplet_only_reads(live: Droplet, tmp_path: Path) -> None:
    told, directory = kept(live, 2)
    sent(live, 1)
    objects, ran = {**live.storage.objects}, len(live.storage.ran)
    reached(live.paths, read_only=True)
    with pytest.raises(RefusedError, match="only reads the storage"):
        upload.upload(stack(live), told, directory)
    (there,) = download.available(stack(live))
    target = tmp_path / there.id
    target.mkdir()
    download.fetch(stack(live), there, target)
    assert repository.look(stack(live)) is None
    assert live.storage.objects == objects
    assert all(arguments[0] == "--no-lock" for arguments in live.storage.ran[ran:])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no JSON", r"it is no JSON \(.*\)"),
        ("[]", "it must be an object"),
        (json.dumps(ACCESS | {"more": 1}), "more is unknown"),
        (json.dumps(ACCESS | {"key_id": 1}), "key_id must be text"),
    ],
)
def test_what_a_converge_did_not_write_is_refused(live: Droplet, text: str, fault: str) -> None:
    live.paths.offsite.write_text(text)
    with pytest.raises(RefusedError, match=rf"access.json: {fault}\. Next: make site"):
        access.load(live.paths)


def test_stackctl_offsite_shows_what_there_is_and_what_the_key_may_do(live: Droplet) -> None:
    told = sent(live)
    code, shown = stackctl(live, "offsite")
    assert code == 0
    assert REPOSITORY in shown
    assert "the droplet's key can only add" in shown
    assert told.id in shown
    document = json.loads(stackctl(live, "offsite", "--json")[1])
    assert document["powers"]["deletes"] is False
    assert [one["id"] for one in document["backups"]] == [told.id]


def test_stackctl_offsite_says_where_to_begin(tmp_path: Path) -> None:
    code, shown = stackctl(installed(tmp_path), "offsite")
    assert code == 2
    assert "set offsite_repository in group_data (docs/how-to/offsite-backups.md), then make site" in shown


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("ams3.digitaloceanspaces.com", "us-east-1"),
        ("10.77.0.2:9000", "us-east-1"),
    ],
)
def test_a_storage_s_region_is_read_from_its_host(host: str, region: str) -> None:
    assert s3.region(host) == region


def test_a_signature_is_of_method_path_body_and_day() -> None:
    """That it is the right one, the lab's storage says (tests/system/faults/recovery)."""
    now, key = datetime(2026, 1, 2, tzinfo=UTC), s3.Key("ID", "secret")
    url = "https://s3.test/bucket/bot/config"
    given = [("GET", url, b"", key, now), ("PUT", url, b"", key, now), ("GET", f"{url}2", b"", key, now),
             ("GET", url, b"x", key, now), ("GET", url, b"", s3.Key("ID", "other"), now),
             ("GET", url, b"", key, datetime(2026, 1, 3, tzinfo=UTC))]  # fmt: skip
    assert len({s3.signed(*one)["authorization"].rpartition("=")[2] for one in given}) == len(given)
    assert s3.signed(*given[0]) == s3.signed(*given[0])


# --- what an intruder sends -----------------------------------------------------------------------------------------

DAY = timedelta(days=1)


def planted(live: Droplet, told: Manifest, *, dump: str = "a dump", stored: datetime | None = None) -> str:
    """A snapshot that is consistent with its own manifest, sent past stackctl; its ID."""
    path = live.paths.backup(told.id)
    name = f"{len(live.storage.snapshots):08x}{'f' * 56}"
    contents = {file: dump.encode() if file == DUMP else file.encode() for file in told.files}
    files = {
        file: manifest.File(len(content), hashlib.sha256(content).hexdigest()) for file, content in contents.items()
    }
    told = replace(told, files=files)
    live.storage.snapshots.append(
        {
            "id": name,
            "time": "2027-01-01T00:00:00Z",
            "hostname": "bot",
            "tags": [told.id],
            "paths": [str(path)],
            "files": {**contents, NAME: told.to_json().encode()},
            "stored": stored or live.storage.now,
        }
    )
    return name


def nights(live: Droplet, *numbers: int) -> None:
    """Backups off the droplet, each of the day of its number and stored an hour later; none is here."""
    for number in numbers:
        at = NOON + number * DAY
        planted(live, dated(number), stored=at + timedelta(hours=1))


def dated(number: int, sequence: int | None = None) -> Manifest:
    at = NOON + number * DAY
    return replace(made(sequence or number, at), id=f"{at:%Y%m%dT%H%M%S}.000Z")


def asked(live: Droplet, wanted: str = "latest", snapshot: str | None = None) -> Manifest:
    return download.chosen(stack(live), wanted, snapshot)


def test_two_that_differ_under_one_id_are_ambiguous_and_named_with_the_storage_s_dates(live: Droplet) -> None:
    nights(live, 1, 2)
    real = dated(2)
    shadow = planted(live, replace(real, tables={"public.offers": 666}), stored=NOON + 9 * DAY)
    live.storage.snapshots[-1]["time"] = "2025-11-25T12:00:00Z"  # restic backup --time
    with pytest.raises(RefusedError) as caught:
        asked(live, real.id)
    said = str(caught.value)
    assert f"{real.id} is ambiguous" in said
    assert "(snapshot 00000001, stored 2025-11-25 13:00 UTC)" in said
    assert "(snapshot 00000002, stored 2025-12-02 12:00 UTC)" in said
    assert f"restore {real.id} --from-offsite --snapshot SNAPSHOT" in said
    assert asked(live, real.id, "00000001").tables == real.tables
    assert asked(live, real.id, shadow).tables == {"public.offers": 666}
    with pytest.raises(RefusedError, match="which backup is the latest is in doubt"):
        asked(live)


@pytest.mark.parametrize(
    ("wanted", "snapshot", "says"),
    [
        ("latest", "00000000", "needs a backup ID"),
        ("20251124T120000.000Z", "0000", "at least 8 characters"),
        ("20251124T120000.000Z", "--no-lock", "at least 8 characters"),
        ("20251124T120000.000Z", "00000001", "0 snapshots of 20251124T120000.000Z begin with 00000001"),
        ("20251129T120000.000Z", None, "the storage has no backup 20251129T120000.000Z"),
        ("--help", None, "there is no backup '--help'"),
    ],
)
def test_who_chooses_names_the_backup_and_its_snapshot(
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
    assert asked(live, told.id).tables == told.tables, "the one here is taken, whatever lies there"
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
"""Manifests' dates and numbers, all of them sent on the ninth day, an hour behind its backup."""


@pytest.mark.parametrize("how", FORGED)
def test_the_latest_is_no_forgery(live: Droplet, how: str) -> None:
    """A newer night settles it; until then an operator is asked, where the forgery would have been the latest."""
    nights(live, *range(1, 10))
    for at, number in FORGED[how]:
        told = replace(made(number, at), id=f"{at:%Y%m%dT%H%M%S}.001Z")
        planted(live, told, dump="forged", stored=NOON + 9 * DAY + timedelta(hours=2))
    if how == "dates of long ago":
        assert asked(live).id == dated(9).id
    else:
        with pytest.raises(RefusedError, match=f"in doubt: .*The newest one without a doubt is {dated(9).id}"):
            asked(live)
    nights(live, 10)
    assert asked(live).id == dated(10).id
    shown = stackctl(live, "offsite")[1]
    doubted = {line.split()[0] for line in shown.splitlines() if "is in doubt" in line}
    assert doubted == {f"{at:%Y%m%dT%H%M%S}.001Z" for at, _ in FORGED[how]}


def test_a_forgery_s_number_is_not_followed(live: Droplet) -> None:
    """Nor read from the storage by a droplet that has none of its own."""
    nights(live, 1, 2)
    planted(live, replace(dated(3, 10**6)), stored=NOON + 2 * DAY)
    assert [one.sequence for one in download.available(stack(live))] == [1, 2]
    assert backup_number.highest(live.paths) == 2


def test_what_was_sent_late_is_in_doubt_and_no_hindrance(live: Droplet) -> None:
    nights(live, 1)
    late = NOON + 5 * DAY + timedelta(hours=1)
    for number in (5, 4, 3, 2):  # as an upload behind an outage does
        planted(live, dated(number), stored=late)
    assert asked(live).id == dated(5).id
    assert asked(live, dated(3).id).id == dated(3).id
    doubts = {one.manifest.id: one.doubts for one in download.everything(stack(live))}
    assert [name for name, found in doubts.items() if found] == [dated(2).id, dated(3).id, dated(4).id]
    assert doubts[dated(2).id] == ("its manifest says 2025-11-25 12:00, 3 days before the date of the storage",)


def test_a_hundred_releases_a_day_are_no_jump(live: Droplet) -> None:
    for number in range(1, 30):
        planted(live, dated(number, 90 * number), stored=NOON + number * DAY)
    planted(live, dated(60, 90 * 60), stored=NOON + 60 * DAY)
    assert not [one for one in download.everything(stack(live)) if one.doubts]


def test_stackctl_offsite_shows_every_snapshot_with_the_storage_s_date(live: Droplet) -> None:
    nights(live, 1, 2)
    planted(live, replace(dated(2), tables={}), stored=NOON + 9 * DAY)
    code, shown = stackctl(live, "offsite")
    assert code == 0
    lines = shown.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith(dated(2).id) and "doubt" not in line] == [
        [dated(2).id, "2025-12-02", "12:00"],
        [dated(2).id, "2025-11-25", "13:00"],
    ]
    twin = r"\(snapshot 00000001, stored 2025-11-25 13:00 UTC\) is in doubt: snapshot \w+ has the same ID and other"
    assert re.search(f"{dated(2).id} {twin}", shown), shown
    document = json.loads(stackctl(live, "offsite", "--json")[1])
    assert [len(one["doubts"]) for one in document["backups"]] == [0, 1, 2]
    assert document["backups"][0]["offsite"] == {"at": "2025-11-24T13:00:00+00:00", "snapshot": "00000000" + "f" * 56}


def test_a_snapshot_whose_date_can_t_be_had_hides_nothing(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    nights(live, 1, 2)
    monkeypatch.setattr(live.storage, "head", lambda *_: (503, "Sun, 23 Nov 2025 12:00:07 GMT"))
    with pytest.raises(FailedError, match=r"cannot read the date of snapshot 00000000 \(503\)"):
        download.everything(stack(live))


# --- a droplet that went back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("newer", [1, 2, 3])
def test_after_the_droplet_went_back_the_latest_there_is_the_newest_night_s(live: Droplet, newer: int) -> None:
    """Nights 8 to 15, then put back to 10: nights 16 to 18 follow as 11, 12, 13, as older checkouts numbered them."""
    nights(live, *range(8, 16))
    for number in range(16, 16 + newer):
        planted(live, dated(number, number - 5), stored=NOON + number * DAY + timedelta(hours=1))
    assert asked(live).id == dated(15 + newer).id
    assert not [one for one in download.everything(stack(live)) if one.doubts]


def put_back(live: Droplet) -> None:
    """The storage has 8 to 15; here there are 8 to 10, as the provider's snapshot had them."""
    nights(live, *range(8, 16))
    for number in range(8, 11):
        directory = live.paths.backup(dated(number).id)
        directory.mkdir(parents=True)
        there = live.storage.snapshots[number - 8]["files"]
        for name, content in there.items():
            (directory / name).write_bytes(content)
        manifest.save(directory, replace(manifest.load(directory), offsite=manifest.Offsite(NOON.isoformat(), "1")))
    backup_number.seen(live.paths, 10)


def test_a_droplet_that_went_back_numbers_its_first_night_behind_what_the_storage_has(live: Droplet) -> None:
    """So it counts as the newest here, too, where one of the nights that were given up was fetched."""
    put_back(live)
    for day, number in ((16, 16), (17, 17)):
        live.seconds = (day * DAY).total_seconds()
        code, shown = stackctl(live, "backup")
        assert code == 0, shown
        assert ("unsent backups get higher ones" in shown) == (day == 16)
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
    assert all("--no-cache" in arguments for arguments in fetched), "what is known is not read each night"
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


def test_a_night_that_was_given_up_and_is_damaged_keeps_nothing_here(live: Droplet) -> None:
    put_back(live)
    live.seconds = (16 * DAY).total_seconds()
    done = live.storage.restic
    damaged = live.storage.snapshots[-1]["id"]

    def fails(arguments: list[str], env: Mapping[str, str]) -> Result:
        broken = arguments[0] == "dump" and arguments[1] == damaged
        return Result(1, stderr="Fatal: ciphertext verification failed") if broken else done(arguments, env)

    with patch.object(live.storage, "restic", fails):
        code, shown = stackctl(live, "backup")
    assert (code, "cannot read the numbers in the storage" in shown) == (0, True), shown
    assert asked(live).id == manifest.every(live.paths.backups)[-1].id, "by time it is the newest all the same"


def test_a_forgery_moves_no_number_of_ours(live: Droplet) -> None:
    put_back(live)
    planted(live, replace(dated(15, 10**6), id="20251208T120000.001Z"), stored=NOON + 15 * DAY)
    live.seconds = (16 * DAY).total_seconds()
    assert stackctl(live, "backup")[0] == 0
    assert manifest.every(live.paths.backups)[-1].sequence == 16


# --- numbers that hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["backup", "dump"])
def test_what_is_large_has_longer(live: Droplet, verb: str) -> None:
    """A gigabyte more than half an hour, or the backup of a large shop would never get off the droplet."""
    told, directory = kept(live)
    with patch.object(Manifest, "bytes", 10**9):
        upload.upload(stack(live), told, directory)
    assert live.storage.patience[verb] > 2000
    upload.upload(stack(live), told, directory)
    assert live.storage.patience[verb] < 200


def test_another_host_s_snapshots_are_none_of_this_app(live: Droplet) -> None:
    """Where a bucket and its prefix are shared."""
    told = sent(live)
    foreign = {**live.storage.snapshots[0], "id": "e" * 64, "hostname": "another"}
    live.storage.snapshots.append({**foreign, "tags": ["20251124T000000.000Z"]})
    assert upload.sent(stack(live)) == {told.id}
    assert [one.manifest.id for one in download.everything(stack(live))] == [told.id]


def test_what_is_compared_comes_from_the_storage_and_no_cache(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    told, directory = kept(live)
    done = live.storage._backup

    def lost_a_byte(place: Path, tag: str, host: str) -> str:
        said = done(place, tag, host)
        live.storage.snapshots[-1]["files"][DUMP] = b"another"
        return said

    monkeypatch.setattr(live.storage, "_backup", lost_a_byte)
    with pytest.raises(FailedError, match=f"{told.id} is damaged in the storage"):
        upload.upload(stack(live), told, directory)


def test_a_verb_that_restic_does_not_have_is_refused_by_the_stand_in() -> None:
    env = {"RESTIC_REPOSITORY": REPOSITORY, "RESTIC_PASSWORD": SECRETS["password"]}
    env |= {"AWS_ACCESS_KEY_ID": SECRETS["key_id"], "AWS_SECRET_ACCESS_KEY": SECRETS["key_secret"]}
    with pytest.raises(AssertionError, match="restic has no verb snapshot"):
        Storage().restic(["snapshot"], env)
