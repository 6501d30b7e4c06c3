"""A release keeps some releases and images, and removes the others."""

import pytest

from stackctl.app import state
from stackctl.backup import manifest
from tests.support.fakes.declared import REPOSITORY
from tests.support.fakes.droplet import KNOWN, Droplet, stackctl
from tests.support.releases import ids


def test_three_releases_are_kept_and_the_images_they_need(fresh: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in range(6):
        fresh.docker.publish(f"2.{minor}.0")
        monkeypatch.setitem(KNOWN, f"2.{minor}.0", ["0001"])
        assert stackctl(fresh, "release", f"2.{minor}.0")[0] == 0
    assert len(ids(fresh)) == 3
    assert {image for name, image in fresh.docker.images.items() if name.startswith(REPOSITORY)} == {
        "2.3.0",
        "2.4.0",
        "2.5.0",
    }


def test_releasing_the_same_again_leaves_something_to_go_back_to(live: Droplet) -> None:
    for _ in range(4):
        assert stackctl(live, "release", "1.1.0")[0] == 0
    assert stackctl(live, "rollback")[0] == 0
    assert [known.tag for known in state.load(live.paths).kept] == ["1.0.0", "1.1.0"]


def test_releases_that_fail_do_not_fill_the_disk(live: Droplet) -> None:
    live.app = {"ready": 200, "update": 500}
    for _ in range(5):
        assert stackctl(live, "release", "1.1.0")[0] == 1
    # The dumps of failed releases stay until a newer backup is verified. A release is refused if the disk is too full.
    assert len(list(live.paths.backups.iterdir())) == 6
    assert stackctl(live, "backup")[0] == 0
    assert [one.reason for one in manifest.every(live.paths.backups)] == ["release"] * 3 + ["asked"]
    assert not [name for name in live.docker.images if name.endswith(":1.1.0") and "@" not in name]


def test_the_image_of_the_live_release_survives_being_released_often(fresh: Droplet) -> None:
    for _ in range(5):
        assert stackctl(fresh, "release", "1.0.0")[0] == 0
        assert f"{REPOSITORY}@sha256:1.0.0" in fresh.docker.images


def test_a_rollback_s_release_is_kept_even_if_it_looks_old(live: Droplet) -> None:
    """The releases of both colours are kept, although killed releases look newer because the clock was ahead."""
    for orphan in range(3):
        live.paths.snapshot(f"2099010{orphan}T000000Z").write_text("{}")
    assert stackctl(live, "release", "1.1.0")[0] == 0
    kept = {path.stem for path in live.paths.secrets.glob("*.json")}
    assert {release.id for release in state.load(live.paths).colours.values() if release} <= kept
