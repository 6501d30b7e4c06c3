"""Helpers that return the live release, the kept releases and the running containers of the fake droplet."""

from dataclasses import replace
from pathlib import Path

from stackctl.app import state
from stackctl.app.state import State
from tests.support.fakes.droplet import Droplet, installed, stackctl


def ids(fresh: Droplet) -> set[str]:
    """Return the IDs of the releases whose environment and image are kept."""
    snapshots = {path.stem for path in fresh.paths.secrets.glob("*.json")} - {"next"}
    images = {name.partition(":")[2] for name in fresh.docker.images if name.startswith("bot/release:")}
    assert snapshots == images
    return snapshots


def remembered(fresh: Droplet) -> State:
    """Return the state without its revisions, because revisions stay applied even if the release is undone."""
    return replace(state.load(fresh.paths), revisions=())


def running(fresh: Droplet) -> list[tuple[str, str]]:
    """Return the project and image of each container that runs."""
    return sorted((c["project"], c["image"]) for c in fresh.docker.containers if c["state"] == "running")


ENDED = {"state": "exited", "exit_code": 3}


def assert_one_colour_serves(fresh: Droplet) -> None:
    current = state.load(fresh.paths)
    assert fresh.docker.running() == [current.active]
    assert [c["state"] for c in fresh.docker.of(fresh.paths.docker.worker_project)] == ["running"]
    assert current.release
    assert {c["image"] for c in fresh.docker.of(fresh.paths.docker.project(current.active or ""))} == {
        current.release.image
    }
    assert fresh.paths.snapshot(current.release.id).exists()
    assert fresh.paths.units.socket(current.active or "") in fresh.systemd.units


def tag(droplet: Droplet) -> str:
    """Return the live tag."""
    release = state.load(droplet.paths).release
    assert release
    return release.tag


def released_twice(tmp_path: Path) -> Droplet:
    """Return a droplet with 1.1.0 live and 1.0.0 kept."""
    droplet = installed(tmp_path)
    for tag in ("1.0.0", "1.1.0"):
        assert stackctl(droplet, "release", tag)[0] == 0
    droplet.calls.clear()
    return droplet
