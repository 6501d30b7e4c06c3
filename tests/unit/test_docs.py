"""The checks of the documentation find errors, and the documented commands do what the pages say."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests import docs
from tests.support.environment import ROOT

SOURCE = re.compile(r"(?:deploys|stackctl)/.*\.py")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("see tests/unit/test_nothing.py", "names tests/unit/test_nothing.py, which does not exist"),
        ("see nothing/at_all.py", "names nothing/at_all.py, which does not exist"),
        ("see `templates/nothing/`", "names templates/nothing, which does not exist"),
        ("tests/unit/test_docs.py::test_nothing", "names tests/unit/test_docs.py::test_nothing, which does not exist"),
        ("`.venv/bin/python -m deploys.nothing`", "names deploys.nothing, which does not exist"),
        ("[a](nothing.md)", "links to nothing.md, which does not exist"),
        ("# One heading\n[a](#another)", "links to #another, but no heading there has that anchor"),
        ("type `make nothing ENV=prod`", "names `make nothing`, which does not exist"),
        ("    make plan && make nothing", "names `make nothing`, which does not exist"),
        ("type `sudo stackctl nothing`", "names `stackctl nothing`, which does not exist"),
    ],
)
def test_a_missing_name_is_reported(tmp_path: Path, text: str, problem: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert {*docs.problems_of(page)} == {problem}


def test_an_existing_name_is_not_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two\n[a](#one-two) [b](https://example.com/x.md) `make plan ENV=prod` `sudo stackctl status`\n"
        "`python -m tests.docs` `inventories/ENV.secrets.json` `group_data/ENV.py` `deploys/` /etc/nothing.toml "
        "`tests/unit/test_docs.py::test_an_existing_name_is_not_reported`\n\n    make site ENV=prod\n"
    )
    assert list(docs.problems_of(page)) == []


def test_a_page_that_is_out_of_date_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(docs.GENERATORS, docs.COMMANDS, lambda: "another page")
    assert "docs/reference/commands.md is out of date. Next: make docs" in docs.problems()


def test_a_missing_description_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "make_variables", lambda: {"NEW": ""})
    monkeypatch.setattr(docs, "values_of", lambda _: [docs.Value("", "", "new", "1", "")])
    found = list(docs.problems())
    assert "Makefile does not describe NEW. Next: add a line `# NEW: …`" in found
    assert "group_data/all.py does not describe new. Next: add a comment above the value" in found


def test_a_verb_that_a_program_runs_is_internal() -> None:
    operators, internal = docs.commands().split("### Internal verbs")
    assert "### stackctl release" in operators
    assert "### stackctl gate" not in operators
    assert "| `gate` |" in internal


def test_a_value_is_described_by_the_comment_above_or_beside_it() -> None:
    source = '"""Values."""\n\n# == One ==\n# For all.\na = 1  # About a.\n# About\n# b.\nb: list[str] = []\n\nc = 2\n'
    assert list(docs.values_of(source)) == [
        docs.Value("One", "For all.", "a", "1", "About a."),
        docs.Value("One", "For all.", "b", "[]", "About b."),
        docs.Value("One", "For all.", "c", "2", ""),
    ]


def test_a_new_droplet_gets_the_host_key_that_getting_started_makes(tmp_path: Path) -> None:
    """The page's two commands create a host key and print YAML for cloud-init with the key as a block of text."""
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


def test_the_runbook_s_headings_quote_messages_that_exist() -> None:
    sources = [ast.parse((ROOT / path).read_text()) for path in docs.tracked() if SOURCE.fullmatch(path)]
    nodes = (node for source in sources for node in ast.walk(source) if isinstance(node, ast.Constant))
    texts = [node.value for node in nodes if isinstance(node.value, str)]
    headings = re.findall(r'^## .*"(.+)"$', (ROOT / "docs/how-to/runbook.md").read_text(), re.MULTILINE)
    parts = [part.strip(" ().,") for heading in headings for part in heading.split("…")]
    assert len(headings) > 5
    assert [part for part in parts if not any(part in text for text in texts)] == []


def test_renovate_finds_the_pinned_images() -> None:
    (manager,) = json.loads((ROOT / "renovate.json").read_text())["customManagers"]
    pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
    defaults = (ROOT / "group_data/all.py").read_text()
    found = {image["depName"]: image["currentValue"] for image in re.finditer(pattern, defaults)}
    assert found.keys() == {"postgres", "redis"}
    assert all(version.endswith("-trixie") for version in found.values())
    pinned = re.search(pattern, f'redis_image = "redis:8-trixie@sha256:{"0" * 64}"')
    assert pinned
    assert pinned["currentDigest"] == f"sha256:{'0' * 64}"
