"""This module lists the steps of each verb. Tests that iterate over the step tables would not notice a deleted step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stackctl.backup import create
from stackctl.core.steps import Step
from stackctl.release import release, rollback
from stackctl.restore import restore

RELEASE = """preflight image schema plan snapshot backup migrate start health socket probe flip watch worker record
drain stop prune webhook"""
ROLLBACK = "preflight start health socket probe flip worker record drain stop prune webhook"
RESUMED = "preflight worker record drain stop prune webhook"
RESTORE = "preflight plan confirm fetch load count migrate safety close swap rdb start health open forget"
BESIDE = "preflight plan fetch load count name"
BACKUP = "preflight dump redis verify publish upload prune"
TABLES = [
    (release.STEPS, RELEASE, "image schema snapshot migrate start flip worker"),
    (rollback.ROLLBACK, ROLLBACK, "start flip worker"),
    (rollback.RESUME, RESUMED, "worker"),
    (restore.RESTORE, RESTORE, "load migrate close swap rdb"),
    (restore.BESIDE, BESIDE, "load"),
    (create.BACKUP, BACKUP, ""),
]


@pytest.mark.parametrize(
    ("table", "names", "undone"), TABLES, ids=["release", "rollback", "resumed", "restore", "beside", "backup"]
)
def test_a_verb_has_these_steps_in_this_order(table: Sequence[Step[Any]], names: str, undone: str) -> None:
    """Compare the names and order of a verb's steps. `undone` names the steps that stackctl undoes after a failure."""
    assert [step.name for step in table] == names.split()
    assert [step.name for step in table if step.undo] == undone.split()
