"""Fixtures for the tests of rotations."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploys.rotation import rotate
from deploys.secrets import ledger
from tests.support.env_file import env_file
from tests.support.rotations import KEY, LAYOUT, Operator
from tests.support.settings import data_of


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    operator = Operator(tmp_path, monkeypatch)
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    env_file(tmp_path, LAYOUT)
    ledger.write(operator.ages, {"A": ledger.Entry("old", date(2026, 1, 1))})
    data: dict[str, Any] = data_of("prod") | {
        "env_file": str(operator.file),
        "secrets_ledger": str(operator.ages),
        "authorized_keys": str(keys),
        "ssh_strict_host_key_checking": "yes",
    }
    monkeypatch.setattr(rotate, "group_data", lambda _: data)
    monkeypatch.setattr(rotate, "run", operator.runs)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return operator
