"""Tests of stackctl's use of restic, with failures, locks, secrets and the key's permissions."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stackctl.backup.manifest import DUMP, Manifest
from stackctl.backup.offsite import access, download, repository, upload
from stackctl.backup.offsite.access import KeyPermissions
from stackctl.backup.offsite.repository import LOCKED_S
from stackctl.core import durable
from stackctl.core.errors import FailedError
from stackctl.core.program import TIMED_OUT, Result
from stackctl.services.restic import LOCKED, NO_REPOSITORY
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.restic import REPOSITORY, SECRETS, Storage, reached
from tests.support.offsite_backups import FATAL, TRIED, kept, sent, stack

LATER = TRIED.replace("1.4s", "2m3.5s").replace("refused", "reset by peer")


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
        ({"failing": {"backup": Result(1, stderr=f"{TRIED}\n{FATAL}")}},
         "restic backup failed: unable to open config file"),
        ({"failing": {"backup": Result(1, stderr='{"message_type":"exit_error","message":"Fatal: no room there"}')}},
         "restic backup failed: no room there. Next: wait until sudo stackctl check-offsite succeeds"),
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
    """stackctl first asks the storage itself, because restic would retry for a quarter of an hour."""
    told, directory = kept(live)
    live.storage.down = True
    with pytest.raises(FailedError):
        upload.upload(stack(live), told, directory)
    assert live.storage.ran == []


def test_an_upload_s_temporary_files_are_on_the_disk(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    """restic's temporary files go to a disk, because /tmp may be in memory."""
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
    with pytest.raises(FailedError, match=r"is locked \(.*locked by PID 7.*\)\. Next: wait until make prune has ended"):
        upload.upload(stack(live), told, directory)
    assert LOCKED_S < live.seconds - began < 2 * LOCKED_S
    assert LOCKED == 11


@pytest.mark.parametrize("deletes", [True, False])
@pytest.mark.parametrize("overwrites", [True, False])
@pytest.mark.parametrize("before", [None, b"2025-11-22 2\n"])
def test_the_key_s_permissions_are_tried_out(
    live: Droplet,
    *,
    deletes: bool,
    overwrites: bool,
    before: bytes | None,
) -> None:
    """stackctl tries out each permission of the storage's key. An object left by an earlier check changes nothing."""
    live.storage.deletes, live.storage.overwrites = deletes, overwrites
    if before:
        live.storage.objects[repository.PROBE] = before
    sent(live)
    found = access.permissions(live.paths)
    assert found
    assert (found.deletes, found.overwrites) == (deletes, overwrites)
    assert live.storage.objects["config"] == b"of restic"


def test_a_full_disk_does_not_prevent_a_listing_of_the_storage(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    told = sent(live)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    code, shown = stackctl(live, "check-offsite")
    assert (code, told.id in shown) == (0, True), shown


def test_a_key_that_can_t_add_is_not_one_that_can_delete(live: Droplet) -> None:
    live.storage.takes = False
    code, shown = stackctl(live, "check-offsite")
    assert (code, "the droplet's key cannot add objects (403 AccessDenied). Next: let the key write" in shown) == (
        1,
        True,
    )
    assert access.permissions(live.paths) is None


def test_nothing_is_said_of_a_key_that_was_not_tried(live: Droplet) -> None:
    assert access.permissions(live.paths) is None
    assert access.problems(live.paths, "production") == []


@pytest.mark.parametrize(
    ("powers", "append_only", "says"),
    [
        (KeyPermissions("now", deletes=False, overwrites=False), True, ""),
        (KeyPermissions("now", deletes=True, overwrites=True), False, ""),
        (
            KeyPermissions("now", deletes=True, overwrites=False),
            True,
            "key can delete existing objects, although offsite_append",
        ),
        (KeyPermissions("now", deletes=False, overwrites=True), True, "key can overwrite existing objects"),
        (KeyPermissions("now", deletes=True, overwrites=True), True, "key can delete and overwrite existing objects"),
    ],
)
def test_status_tells_when_the_key_may_do_more_than_it_was_said_to(
    live: Droplet,
    powers: KeyPermissions,
    *,
    append_only: bool,
    says: str,
) -> None:
    reached(live.paths, append_only=append_only)
    live.paths.offsite_permissions.write_text(json.dumps(powers.__dict__))
    found = access.problems(live.paths, "production")
    assert [says in line for line in found] == ([True] if says else [])


@pytest.mark.parametrize(("where", "told"), [("production", True), ("staging", False), ("lab", False)])
def test_production_without_off_site_storage_is_a_problem(tmp_path: Path, where: str, *, told: bool) -> None:
    live = installed(tmp_path, environment=where)
    problems = json.loads(stackctl(live, "status", "--json")[1])["problems"]
    assert any("no backup is sent off this droplet. Next: set offsite_repository" in line for line in problems) == told


@pytest.mark.parametrize("verb", ["backup", "dump"])
def test_a_large_backup_has_a_longer_timeout(live: Droplet, verb: str) -> None:
    """The timeout for the upload of a gigabyte is more than half an hour.

    With a fixed timeout, a large backup would never be sent.
    """
    told, directory = kept(live)
    with patch.object(Manifest, "bytes", 10**9):
        upload.upload(stack(live), told, directory)
    assert live.storage.timeouts[verb] > 2000
    upload.upload(stack(live), told, directory)
    assert live.storage.timeouts[verb] < 200


def test_another_host_s_snapshots_are_none_of_this_app(live: Droplet) -> None:
    """stackctl ignores the snapshots of other hosts, because apps may share a bucket and a prefix."""
    told = sent(live)
    foreign = {**live.storage.snapshots[0], "id": "e" * 64, "hostname": "another"}
    live.storage.snapshots.append({**foreign, "tags": ["20251124T000000.000Z"]})
    assert upload.sent(stack(live)) == {told.id}
    assert [one.manifest.id for one in download.everything(stack(live))] == [told.id]


def test_the_comparison_reads_from_the_storage_and_not_from_a_cache(
    live: Droplet, monkeypatch: pytest.MonkeyPatch
) -> None:
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
