"""A killed rollback can be finished, and a rollback works after a killed release."""

from pathlib import Path

import pytest

from stackctl.app import state
from tests.support.fakes.droplet import Droplet, installed, stackctl
from tests.support.fakes.kills import killed_at_its_watch, kills
from tests.support.releases import released_twice, tag


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    return released_twice(tmp_path)


def test_a_killed_rollback_is_finished_by_the_same_command(tmp_path: Path) -> None:
    at = 0
    droplet = installed(tmp_path / "droplet")
    for version in ("1.0.0", "1.1.0"):
        stackctl(droplet, "release", version)
    for at, left in kills(droplet, "rollback", "1.0.0", every=2):
        assert stackctl(left, "rollback", "1.0.0")[0] == 0
        assert (tag(left), left.docker.running()) == ("1.0.0", ["blue"]), at
    assert at > 50


def test_a_rollback_after_a_killed_release_goes_back_to_the_recorded_one(tmp_path: Path) -> None:
    """If a release was killed after its flip, a rollback goes back to the recorded release."""
    led = set[tuple[str, str]]()
    droplet = installed(tmp_path / "droplet")
    for version in ("1.0.0", "1.1.0"):
        stackctl(droplet, "release", version)
    warm = droplet.docker.of("bot-green")[0]["id"]
    for at, left in kills(droplet, "release", "1.2.0", every=2):
        served = tag(left)
        left.docker.registry.clear()
        code, shown = stackctl(left, "rollback")
        assert code == 0, (at, shown)
        assert tag(left) == ("1.1.0" if served == "1.2.0" else "1.0.0"), at
        assert len(left.docker.running()) == 1, at
        assert [container["image"][-5:] for container in left.docker.of("bot-worker")] == [tag(left)], at
        assert served != "1.2.0" or left.docker.of("bot-green")[0]["id"] == warm, at
        led.add((served, tag(left)))
    assert led == {("1.1.0", "1.0.0"), ("1.2.0", "1.1.0")}


def test_no_rollback_goes_past_a_contract_that_was_killed(tmp_path: Path) -> None:
    """A killed contract counts as applied, because a release records revisions before it applies them."""
    droplet, barred, lost = installed(tmp_path / "droplet"), set[bool](), list[str]()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        stackctl(droplet, "release", version)
    for at, left in kills(droplet, "release", "1.3.0"):
        applied = left.postgres.schema == "0003"
        barred.add(applied)
        if applied and "0003" not in {one.revision for one in state.load(left.paths).revisions}:
            lost.append(f"at {at}")
        elif applied and at % 10 == 0:
            code, shown = stackctl(left, "rollback", "1.1.0")
            assert (code, "0003 is a contract" in shown) == (2, True), (at, shown)
    assert barred == {False, True}
    assert not lost


def test_after_a_release_that_was_killed_the_only_one_that_was_recorded_comes_back(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    left = killed_at_its_watch(droplet, "1.1.0")
    code, shown = stackctl(left, "rollback", "9.9.9")
    assert (code, "is kept (kept: 1.0.0)" in shown) == (2, True)
    assert stackctl(left, "rollback")[0] == 0
    assert (tag(left), left.docker.running()) == ("1.0.0", ["blue"])


def test_the_recorded_release_is_recovered_even_if_it_has_stopped(live: Droplet) -> None:
    left = killed_at_its_watch(live, "1.2.0")
    left.docker.of("bot-green")[0]["state"] = "exited"
    assert stackctl(left, "rollback")[0] == 0
    assert (tag(left), left.docker.running()) == ("1.1.0", ["green"])


def test_an_older_one_takes_the_place_of_what_was_killed_and_not_of_what_is_proven(live: Droplet) -> None:
    left = killed_at_its_watch(live, "1.2.0")
    left.app = {"ready": 503}
    assert stackctl(left, "rollback", "1.0.0")[0] == 1
    assert (tag(left), left.docker.running()) == ("1.1.0", ["green"])
