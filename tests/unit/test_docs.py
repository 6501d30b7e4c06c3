"""What the docs name as proof of a claim is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.places import ROOT

NAMED = re.compile(r"\btests/[\w/.-]*?\w+\.(?:py|toml|txt)(?:::(test_\w+))?")
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    for found in NAMED.finditer(page.read_text()):
        path, _, name = found[0].partition("::")
        assert (ROOT / path).is_file(), found[0]
        assert not name or f"\ndef {name}(" in (ROOT / path).read_text(), found[0]


def test_security_md_names_tests() -> None:
    """The check above passes on nothing."""
    assert len(NAMED.findall((ROOT / "docs/security.md").read_text())) > 50
