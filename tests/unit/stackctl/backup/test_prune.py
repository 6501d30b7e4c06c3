"""Old backups are pruned, and a dump that is less than half as large as the last is reported."""

from datetime import timedelta

import pytest

from stackctl.backup import manifest, prune
from tests.support.backups import SHRUNK, every, keep, large, leftovers, problems, proven, small
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.manifests import made
from tests.support.settings import ROOT


def test_a_dump_of_half_the_size_fails_each_night_until_a_manual_backup(live: Droplet) -> None:
    """If a dump is less than half as large as the last one, the run keeps it, prunes nothing and fails."""
    big = large(50, at=live.now() - timedelta(hours=20))
    for one in (*(made(number, live.now() - timedelta(days=60 - number)) for number in range(40, 50)), big):
        keep(live, one)
    for _ in range(2):
        code, shown = stackctl(live, "backup", "--nightly")
        assert (code, SHRUNK.format(big.id) in shown) == (1, True)
        assert "if the loss was intended, run sudo stackctl backup to acknowledge the loss" in shown
        assert [line for line in problems(live) if "lost more than half" in line]
        live.seconds += 86400
    code, shown = stackctl(live, "backup")
    assert (code, SHRUNK.format(big.id) in shown) == (1, True)
    assert "if the loss was intended, later backups are compared with this one" in shown
    assert [one.sequence for one in proven(live)] == [*range(40, 51), 51, 52, 53]
    live.seconds += 86400
    assert stackctl(live, "backup", "--nightly")[0] == 0
    assert len(proven(live)) == prune.KEPT_DAYS


@pytest.mark.parametrize(("percent", "code"), [(49, 1), (51, 0)])
def test_half_is_half(live: Droplet, percent: int, code: int) -> None:
    assert stackctl(live, "backup")[0] == 0
    size = proven(live)[-1].files[manifest.DUMP].bytes
    keep(live, made(40, files={manifest.DUMP: manifest.File(size * 100 // percent, "0" * 64)}))
    ended, shown = stackctl(live, "backup", "--nightly")
    assert (ended, "more than half of its size" in shown) == (code, bool(code)), shown


def test_sizes_are_not_compared_with_pre_restore_or_unverified_backups(live: Droplet) -> None:
    """A backup's size is compared with earlier backups, except with pre-restore and unverified backups."""
    for one in (large(40), small(41, reason="asked"), large(42, reason="safety"), large(43, verified=False)):
        keep(live, one)
    assert stackctl(live, "backup", "--nightly")[0] == 0
    keep(live, large(45))
    keep(live, small(46))
    code, shown = stackctl(live, "backup", "--nightly")
    assert (code, SHRUNK.format(large(45).id) in shown) == (1, True)


def test_the_nightly_ones_of_seven_days_stay_and_the_newest_of_releases(live: Droplet) -> None:
    for _ in range(4):
        stackctl(live, "release", "1.1.0")
    for _ in range(9):
        live.seconds += 86400
        assert stackctl(live, "backup", "--nightly")[0] == 0
    reasons = [one.reason for one in every(live)]
    assert reasons == ["release"] * prune.KEPT_OF_RELEASES + ["nightly"] * prune.KEPT_DAYS
    assert leftovers(live) == []


def test_the_numbers_of_what_stays_are_those_of_the_docs() -> None:
    assert (prune.KEPT_DAYS, prune.KEPT_OF_RELEASES) == (7, 3)
    text = (ROOT / "docs/reference/backups.md").read_text().replace("\n", " ")
    assert "The newest backup of each of the last 7 days with a backup is kept." in text
    assert "At least the newest 7 backups are always kept." in text
    assert "The last 3 backups that releases made are kept." in text
    assert "keeps the backups of 7 days on the droplet" in text
