"""What the docs name as proof of a claim is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.places import ROOT

NAMED = re.compile(r"\btests/[\w/.-]*?\w+\.(?:py|toml|txt)(?:::(test_\w+))?")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_a_page_names_exists(page: Path) -> None:
    for found in NAMED.finditer(page.read_text()):
        path, _, name = found[0].partition("::")
        assert (ROOT / path).is_file(), found[0]
        assert not name or f"\ndef {name}(" in (ROOT / path).read_text(), found[0]


def test_security_md_names_tests() -> None:
    """The check above passes on nothing."""
    assert len(NAMED.findall((ROOT / "docs/explanation/security.md").read_text())) > 50


def test_a_new_droplet_gets_the_host_key_that_first_droplet_md_makes(tmp_path: Path) -> None:
    """Its two commands: what the second one prints is YAML for cloud-init's user data, the key as a block of text."""
    page = (ROOT / "docs/getting-started.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("    ") and "first_host_key" in line]
    ran = subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, capture_output=True, text=True, check=True)
    head, name, *private, public = ran.stdout.splitlines()
    assert (head, name) == ("ssh_keys:", "  ed25519_private: |")
    assert all(line.startswith("    ") for line in private)
    key = tmp_path / "as_cloud_init_writes_it"
    key.write_text(dedent("\n".join(private)) + "\n")
    key.chmod(0o600)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert public.split()[:3] == ["ed25519_public:", *derived.split()[:2]]
