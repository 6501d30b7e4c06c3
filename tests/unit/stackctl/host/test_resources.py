"""`stackctl status` says when a disk is full, or when no time server has set the clock."""

import pytest

from stackctl.core import disk
from stackctl.host import resources
from tests.support.fakes.droplet import Droplet
from tests.support.status import status


def test_a_droplet_with_room_and_the_right_time_has_no_problem(live: Droplet) -> None:
    live.seconds = resources.CLOCK_GRACE_S
    assert status(live)[1]["problems"] == []


def test_a_full_disk_is_a_problem(live: Droplet) -> None:
    live.bytes_free = disk.SPARE - 1
    code, report = status(live)
    (problem,) = report["problems"]
    assert (code, f"the disk of {live.paths.root} is full: it has 255 MiB left. Next: " in problem) == (4, True)


def test_each_full_disk_is_named_once(live: Droplet) -> None:
    live.disks = {live.paths.backups: 0}
    live.paths.backups.mkdir(parents=True, exist_ok=True)
    (problem,) = status(live)[1]["problems"]
    assert f"the disk of {live.paths.backups} is full: it has 0 MiB left" in problem


def test_a_disk_without_inodes_is_a_problem(live: Droplet) -> None:
    live.inodes_free = 9
    (problem,) = status(live)[1]["problems"]
    assert "can create only 9 more files" in problem


@pytest.mark.parametrize(
    ("seconds", "told"), [(resources.CLOCK_GRACE_S - 1, []), (resources.CLOCK_GRACE_S, ["no time"])]
)
def test_a_clock_that_no_time_server_has_set_is_a_problem(live: Droplet, seconds: int, told: list[str]) -> None:
    live.paths.time_set.unlink()
    live.seconds = seconds
    assert [problem[:7] for problem in status(live)[1]["problems"]] == told


def test_a_container_has_the_clock_of_its_host(live: Droplet) -> None:
    live.paths.time_set.unlink()
    live.paths.in_container.touch()
    live.seconds = resources.CLOCK_GRACE_S
    assert status(live)[1]["problems"] == []
