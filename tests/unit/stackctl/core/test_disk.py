"""An action that lacks free space on the disk fails with a clear message."""

from pathlib import Path

import pytest

from stackctl.core import disk
from stackctl.core.disk import IMAGE, SERVER, SPARE, WAL
from stackctl.core.errors import FailedError, RefusedError

MIB = 1 << 20


def test_a_verified_backup_needs_the_database_twice() -> None:
    assert disk.of_backup(10 * MIB, verified=False) == 10 * MIB + SPARE
    assert disk.of_backup(10 * MIB, verified=True) == 20 * MIB + SPARE + SERVER


def test_a_restore_needs_the_database_and_its_log_up_to_a_limit() -> None:
    assert disk.of_restore(10 * MIB) == 20 * MIB + SPARE
    assert disk.of_restore(5 * WAL) == 6 * WAL + SPARE


@pytest.mark.parametrize(("free", "usable"), [(0, 0), (SPARE - 1, 0), (SPARE + 7, 7)])
def test_what_is_spared_is_not_usable(free: int, usable: int) -> None:
    assert disk.usable(free) == usable


def test_all_needs_must_fit_together() -> None:
    needs = {"a backup": 10 * MIB, "an image": IMAGE, "nothing": 0}
    disk.check(Path("/x"), 10 * MIB + IMAGE, needs)
    with pytest.raises(RefusedError) as refused:
        disk.check(Path("/x"), 10 * MIB + IMAGE - 1, needs)
    assert (
        str(refused.value)
        == "/x has 521 MiB left, but a backup may need 10 MiB and an image may need 512 MiB. Next: make room there"
    )
    with pytest.raises(FailedError):
        disk.check(Path("/x"), 0, needs, FailedError)
