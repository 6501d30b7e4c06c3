"""Only a copy of a droplet gets a new machine ID."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from deploys.components import base
from tests.support.settings import settings_of


@pytest.mark.parametrize("is_copy", [True, False])
def test_only_a_copy_gets_a_machine_id_of_its_own(monkeypatch: pytest.MonkeyPatch, *, is_copy: bool) -> None:
    asked: dict[str, Any] = {}
    for name in (
        "wait_for_cloud_init",
        "atomic_file",
        "repair_interrupted_dpkg",
        "packages",
        "swapfile",
        "run_handler",
    ):
        monkeypatch.setattr(base, name, MagicMock())
    for name in ("files", "server"):
        monkeypatch.setattr(base, name, MagicMock())
    monkeypatch.setattr(base, "host", SimpleNamespace(name="prod-1"))
    monkeypatch.setattr(base, "new_machine_id", lambda **arguments: asked.update(arguments))
    base.base._inner(replace(settings_of("prod"), is_copy=is_copy))
    assert bool(asked) == is_copy
