"""A backup's manifest: what was written is read again, and nothing else is believed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stackctl import manifest
from stackctl.errors import FailedError
from stackctl.manifest import File, Offsite, Redis

from tests.unit.manifests import made

WHOLE = replace(
    made(1),
    redis=Redis("8.0.2", 5),
    release={"id": "20251123T120000.000Z", "tag": "1.0.0", "what a newer stackctl adds": 1},
    schema="0003",
    offsite=Offsite("2025-11-23T12:05:00+00:00", "4f1c2d3e"),
)
SHA256 = "0" * 64


@given(st.dictionaries(st.text(min_size=1), st.integers(0), max_size=5), st.integers(0))
def test_what_was_written_is_read_again(tables: dict[str, int], sequence: int) -> None:
    written = replace(WHOLE, tables=tables, sequence=sequence)
    assert manifest.parse(written.to_json(), "it") == written
    least = replace(made(1, verified=False), tables=tables)
    assert manifest.parse(least.to_json(), "it") == least


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 1}, "is of version 1, not 2"),
        ({"more": 1}, "more is unknown"),
        ({"id": "../20251123T000001.000Z"}, "id makes no sense"),
        ({"reason": "boredom"}, "reason makes no sense"),
        ({"at": "2025-11-23T12:00:00"}, "at makes no sense"),
        ({"sequence": True}, "sequence makes no sense"),
        ({"release": {"id": "20251123T120000.000Z"}}, "release makes no sense"),
        ({"postgres": {"version": "17.11", "database": "app"}}, "postgres makes no sense"),
        ({"redis": {"version": "", "keys": 1}}, "redis makes no sense"),
        ({"tables": {"public.offers": -1}}, "tables makes no sense"),
        ({"files": {"globals.sql": {"bytes": 1, "sha256": SHA256}}}, "files makes no sense"),
        ({"files": {"postgres.dump": {"bytes": 1, "sha256": "0"}}}, "files makes no sense"),
        (
            {"files": {name: {"bytes": 1, "sha256": SHA256} for name in ("postgres.dump", "../x")}},
            "files makes no sense",
        ),
        ({"verified": {"at": "today", "seconds": 1, "rows": 1}}, "verified makes no sense"),
        ({"offsite": {"at": "2025-11-23T12:00:00+00:00", "snapshot": ""}}, "offsite makes no sense"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, Any], fault: str) -> None:
    document = json.loads(WHOLE.to_json()) | change
    with pytest.raises(FailedError, match=f"^/there: {fault}: take another backup"):
        manifest.parse(json.dumps(document), "/there")


@pytest.mark.parametrize("key", json.loads(WHOLE.to_json()))
def test_nothing_may_be_missing(key: str) -> None:
    document = json.loads(WHOLE.to_json())
    del document[key]
    with pytest.raises(FailedError, match=key):
        manifest.parse(json.dumps(document), "it")


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2', "\x00"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(FailedError, match="it"):
        manifest.parse(text, "it")


def test_what_is_no_backup_is_named_and_counts_for_nothing(tmp_path: Path) -> None:
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
    assert [torn.id in faults[0], f"is the one of {later.id}" in faults[1], len(faults)] == [True, True, 2]


def test_files_that_are_not_what_was_written_are_named(tmp_path: Path) -> None:
    for name, content in {"whole": b"1234", "short": b"1234", "flipped": b"1234", "gone": b"1234"}.items():
        (tmp_path / name).write_bytes(content)
    told = {path.name: manifest.describe(path) for path in tmp_path.iterdir()}
    assert told["whole"] == File(4, "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4")
    (tmp_path / "short").write_bytes(b"123")
    (tmp_path / "flipped").write_bytes(b"1235")
    (tmp_path / "gone").unlink()
    faults = sorted(manifest.differing(tmp_path, replace(WHOLE, files=told)))
    assert [line.split()[0] for line in faults] == ["flipped", "gone", "short"]
    assert faults[1:] == ["gone is missing", "short has 3 bytes, its manifest says 4"]
    (tmp_path / "empty").touch()
    with pytest.raises(FailedError, match="empty is empty"):
        manifest.describe(tmp_path / "empty")
