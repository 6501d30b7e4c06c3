"""Each script that pyinfra runs turns its data into the right arguments for stackctl."""

from __future__ import annotations

import runpy
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host

from deploys.cli import verb
from tests.support.environment import ROOT

ID = "20251123T023004.123Z"


def run(script: str, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the inventory group and stackctl's arguments."""
    asked: list[str] = []
    monkeypatch.setattr(verb, "run", lambda _, *words, group=None: asked.extend([str(group), *words]))
    with ctx_host.use(SimpleNamespace(data=data)):
        runpy.run_path(str(ROOT / "deploys" / f"{script}.py"))
    return asked


@pytest.mark.parametrize(
    ("script", "data", "words"),
    [
        ("status", {}, "None status"),
        ("backup", {}, "data backup"),
        ("release", {"tag": "1.10"}, "app release -- 1.10"),
        ("rollback", {}, "app rollback"),
        ("rollback", {"tag": ""}, "app rollback"),
        ("rollback", {"tag": "1.10"}, "app rollback -- 1.10"),
        ("restore", {"id": "latest", "yes": ""}, "data restore latest"),
        ("restore", {"id": ID, "yes": ID}, f"data restore {ID} --yes {ID}"),
        (
            "restore",
            {"id": ID, "yes": ID, "offsite": True, "snapshot": "4f1c2d3e", "beside": "lost"},
            f"data restore {ID} --from-offsite --snapshot 4f1c2d3e --to-database lost --yes {ID}",
        ),
    ],
)
def test_a_script_runs_its_verb(script: str, data: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(script, data, monkeypatch) == words.split()


@pytest.mark.parametrize(
    ("script", "data", "refusal"),
    [
        ("release", {}, "Cannot release: no tag was given. Next: make release TAG=1.2.0"),
        ("release", {"tag": ""}, "Cannot release: no tag was given"),
        ("release", {"tag": 1.1}, "Cannot release: no tag was given"),
        ("rollback", {"tag": 1.1}, "Cannot roll back: the tag is a number. Next: quote the tag"),
        ("restore", {}, "Cannot restore: no backup was named. Next: make restore ID=latest"),
        ("restore", {"id": ""}, "Cannot restore: no backup was named"),
        ("restore", {"id": "latest", "beside": 1}, "Cannot restore: no backup was named"),
    ],
)
def test_a_missing_word_or_a_number_is_refused(
    script: str, data: dict[str, Any], refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PyinfraError) as refused:
        run(script, data, monkeypatch)
    assert str(refused.value).startswith(refusal)
