"""Tests of the storage's access file, of requests without restic, and of `stackctl check-offsite`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stackctl.backup.offsite import access, download, repository, upload
from stackctl.core.errors import RefusedError
from stackctl.services import s3
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.restic import ACCESS, REPOSITORY, reached
from tests.support.offsite_backups import kept, sent, stack


def test_an_isolated_droplet_only_reads(live: Droplet, tmp_path: Path) -> None:
    told, directory = kept(live, 2)
    sent(live, 1)
    objects, ran = {**live.storage.objects}, len(live.storage.ran)
    reached(live.paths, read_only=True)
    with pytest.raises(RefusedError, match="no backup was sent, because this droplet is isolated"):
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
        ("no JSON", r"the document is not JSON \(.*\)"),
        ("[]", "the document must be an object"),
        (json.dumps(ACCESS | {"more": 1}), "more is unknown"),
        (json.dumps(ACCESS | {"key_id": 1}), "key_id must be text"),
    ],
)
def test_an_access_file_that_no_converge_wrote_is_refused(live: Droplet, text: str, fault: str) -> None:
    live.paths.offsite.write_text(text)
    with pytest.raises(RefusedError, match=rf"access.json: {fault}\. Next: make site"):
        access.load(live.paths)


def test_check_offsite_shows_what_there_is_and_what_the_key_may_do(live: Droplet) -> None:
    told = sent(live)
    code, shown = stackctl(live, "check-offsite")
    assert code == 0
    assert REPOSITORY in shown
    assert "the droplet's key can only add objects" in shown
    assert told.id in shown
    document = json.loads(stackctl(live, "check-offsite", "--json")[1])
    assert document["powers"]["deletes"] is False
    assert [one["id"] for one in document["backups"]] == [told.id]


def test_check_offsite_says_where_to_begin(tmp_path: Path) -> None:
    code, shown = stackctl(installed(tmp_path), "check-offsite")
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
    """A different method, path, body or day gives a different signature.

    The lab's storage checks real signatures (tests/system/faults/recovery).
    """
    now, key = datetime(2026, 1, 2, tzinfo=UTC), s3.Key("ID", "secret")
    url = "https://s3.test/bucket/bot/config"
    given = [("GET", url, b"", key, now), ("PUT", url, b"", key, now), ("GET", f"{url}2", b"", key, now),
             ("GET", url, b"x", key, now), ("GET", url, b"", s3.Key("ID", "other"), now),
             ("GET", url, b"", key, datetime(2026, 1, 3, tzinfo=UTC))]  # fmt: skip
    assert len({s3.signed(*one)["authorization"].rpartition("=")[2] for one in given}) == len(given)
    assert s3.signed(*given[0]) == s3.signed(*given[0])
