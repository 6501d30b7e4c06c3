"""docs/reference/formats.md names every key that stackctl writes, and no other key."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from stackctl.app.state import Release
from stackctl.app.unfinished_restore import Record
from stackctl.backup.manifest import Manifest
from stackctl.core.version import VERSION
from tests.docs import ROOT
from tests.support.fakes.droplet import Droplet, installed, stackctl

PAGE = ROOT / "docs/reference/formats.md"


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    return droplet


def documented(heading: str, table: int = 0) -> set[str]:
    """Return the keys in the first column of a table below a heading."""
    _, _, below = PAGE.read_text().partition(f"\n## {heading}\n")
    rows = below.partition("\n## ")[0].split("|---|")[table + 1].split("\n\n")[0]
    return {key for cell in re.findall(r"^\| (.+?) \|", rows, re.MULTILINE) for key in re.findall(r"`(\w+)`", cell)}


def test_status_is_documented(live: Droplet) -> None:
    report = json.loads(stackctl(live, "status", "--json")[1])
    assert report.keys() == documented("status --json")
    assert report["stackctl"] == VERSION
    assert re.search(rf"^stackctl +{re.escape(VERSION)}$", stackctl(live, "status")[1], re.MULTILINE)


def test_history_is_documented(live: Droplet) -> None:
    events = [json.loads(line) for line in live.paths.history.read_text().splitlines()]
    assert {key for event in events for key in event} | {"key", "request"} == documented("history.jsonl")


def test_the_state_is_documented(live: Droplet) -> None:
    assert json.loads(live.paths.state.read_text()).keys() == documented("state.json")
    assert {one.name for one in fields(Release)} == documented("state.json", table=1)


def test_a_manifest_is_documented() -> None:
    assert {one.name for one in fields(Manifest)} | {"version"} == documented("manifest.json")


def test_an_unfinished_restore_is_documented() -> None:
    assert {one.name for one in fields(Record)} == documented("restoring.json")
