"""A release checks the droplet before it changes anything."""

import os
from pathlib import Path

import pytest

from stackctl.core import disk
from tests.support.fakes.droplet import installed, stackctl

MIB = 1 << 20


@pytest.mark.parametrize(
    ("images", "backups", "refusal"),
    [
        (disk.IMAGE, 263 * MIB, None),
        (disk.IMAGE, 200 * MIB, "backups has 200 MiB left, but a backup may need 262 MiB. Next: make room there"),
        (disk.IMAGE - MIB, 263 * MIB, "bot has 511 MiB left, but an image may need 512 MiB. Next: make room there"),
    ],
)
def test_an_image_and_a_dump_on_two_disks_need_room_each_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, backups: int, refusal: str | None
) -> None:
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    droplet.bytes_free, droplet.disks = images, {droplet.paths.backups: backups}
    stat = Path.stat

    def on_two_disks(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = stat(path, follow_symlinks=follow_symlinks)
        own = found.st_dev + (path == droplet.paths.backups)
        return os.stat_result((*found[:2], own, *found[3:10]))

    monkeypatch.setattr(Path, "stat", on_two_disks)
    code, shown = stackctl(droplet, "release", "1.1.0")
    assert (code, refusal is None or refusal in shown.splitlines()[-1]) == (2 if refusal else 0, True), shown
