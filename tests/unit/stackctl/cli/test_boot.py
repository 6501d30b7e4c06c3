"""boot and halt start and stop the right containers. A release first recovers the recorded release."""

import json
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.core.program import Result
from tests.support.fakes.droplet import CONFIG, Droplet, stackctl
from tests.support.status import status, web, worker


def serves(droplet: Droplet) -> tuple[str | None, str, list[str]]:
    """Return the active colour, its tag, and the running colours."""
    current = state.load(droplet.paths)
    assert current.release
    return current.active, current.release.tag, droplet.docker.running()


def test_halt_stops_the_app_before_its_data_and_boot_brings_the_same_back(live: Droplet) -> None:
    before = [(c["id"], c["image"]) for c in live.docker.containers]
    assert stackctl(live, "halt")[0] == 0
    app, jobs, data = live.ran("docker stop")
    assert app == ["docker", "stop", "-t", "5", web(live)["id"]]
    assert jobs == ["docker", "stop", "-t", "7", worker(live)["id"]]
    assert data == ["docker", "stop", *(c["id"] for c in live.docker.containers if c["project"] == "bot-data")]
    live.systemd.units.clear()
    assert stackctl(live, "boot")[0] == 0
    assert [(c["id"], c["image"]) for c in live.docker.containers] == before
    assert {c["state"] for c in live.docker.containers} == {"running"}
    assert live.systemd.units == {"bot-blue.socket"}
    assert not live.ran("docker pull")


def test_boot_uses_what_the_release_started_with(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({"OTHER": "environment"}))
    sha256 = web(live)["sha256"]
    live.docker.containers = live.docker.of("bot-data")
    assert stackctl(live, "boot")[0] == 0
    assert web(live)["sha256"] == worker(live)["sha256"] == sha256
    assert web(live)["image"] == worker(live)["image"]


def test_boot_starts_the_existing_worker_and_creates_none(live: Droplet) -> None:
    """boot starts the existing worker although the worker's Compose file has changed.

    Only a release may recreate the worker.
    """
    before = worker(live)["id"]
    live.paths.worker_yaml.write_text("services: {worker: {}}\n")
    assert stackctl(live, "halt")[0] == 0
    assert worker(live)["state"] == "exited"
    assert stackctl(live, "boot")[0] == 0
    assert (worker(live)["id"], worker(live)["state"]) == (before, "running")


def test_boot_without_a_worker_starts_none(live: Droplet) -> None:
    live.docker.containers.remove(worker(live))
    live.paths.config.write_text(json.dumps(CONFIG | {"worker": False}))
    assert stackctl(live, "boot")[0] == 0
    assert not live.docker.of("bot-worker")


def test_a_worker_that_does_not_start_stops_no_request(live: Droplet) -> None:
    stackctl(live, "halt")
    live.failing = {"--project-name bot-worker": Result(1, stderr="no such network")}
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert "worker: worker doesn't start: no such network" in shown.splitlines()[-1]
    assert live.docker.running() == ["blue"]
    assert live.systemd.units == {"bot-blue.socket"}


def test_boot_stops_the_colour_that_does_not_serve(live: Droplet) -> None:
    live.docker.create("bot-green", "web", web(live)["image"], {})
    assert live.docker.running() == ["blue", "green"]
    assert stackctl(live, "boot")[0] == 0
    assert live.docker.running() == ["blue"]


def test_boot_takes_an_uncommitted_release_back(uncommitted: Droplet) -> None:
    """An uncommitted release was not watched to the end. After a hard reset, both colours run."""
    uncommitted.reset()
    assert stackctl(uncommitted, "boot")[0] == 0
    assert serves(uncommitted) == ("blue", "1.0.0", ["blue"])
    assert uncommitted.systemd.units == {"bot-blue.socket"}
    code, report = status(uncommitted)
    assert (code, report["drift"], report["worker"]["tag"]) == (0, [], "1.0.0")


def test_boot_leaves_a_recorded_release_where_it_is(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert stackctl(live, "boot")[0] == 0
    assert serves(live) == ("green", "1.1.0", ["green"])


RECORDED = "1.0.0 in blue is live again, as recorded"


def settled(droplet: Droplet, *verb: str) -> tuple[int, list[str]]:
    """Return the exit code and the messages of the step `settle`."""
    code, shown = stackctl(droplet, *verb, "--json")
    heard = [json.loads(line) for line in shown.splitlines()]
    return code, [event["message"] for event in heard if (event["step"], event["state"]) == ("settle", "done")]


@pytest.mark.parametrize("tag", ["1.1.0", "1.2.0"])
def test_a_release_first_recovers_the_recorded_one(uncommitted: Droplet, tag: str) -> None:
    """A release first recovers the recorded release, because a failed release must return to the recorded one."""
    assert settled(uncommitted, "release", tag) == (0, [RECORDED])
    assert serves(uncommitted) == ("green", tag, ["green"])
    assert [known.tag for known in state.load(uncommitted.paths).kept] == [tag, "1.0.0"]


def test_a_release_that_fails_after_one_that_was_killed_leaves_what_was_recorded(uncommitted: Droplet) -> None:
    uncommitted.app = {"ready": 200, "update": 500}
    assert settled(uncommitted, "release", "1.1.0") == (1, [RECORDED])
    assert serves(uncommitted) == ("blue", "1.0.0", ["blue"])


def test_the_recorded_release_is_recovered_even_if_its_health_is_unknown(uncommitted: Droplet) -> None:
    """The recorded release is recovered even if Docker does not know its health yet, as after a start of Docker."""
    for container in uncommitted.docker.of("bot-blue"):
        container["health"] = "starting"
    assert settled(uncommitted, "release", "9.9.9") == (1, [RECORDED])
    assert serves(uncommitted)[:2] == ("blue", "1.0.0")


@pytest.mark.parametrize("how", [{"state": "exited"}, {"health": "unhealthy"}])
def test_what_serves_is_not_given_up_for_a_recorded_one_that_does_not(
    uncommitted: Droplet, how: dict[str, str]
) -> None:
    for container in uncommitted.docker.of("bot-blue"):
        container.update(how)
    assert settled(uncommitted, "release", "9.9.9") == (2, [])
    assert serves(uncommitted)[:2] == ("green", "1.1.0")


def test_a_dry_run_settles_nothing_and_says_what_would_give_way(uncommitted: Droplet) -> None:
    code, shown = stackctl(uncommitted, "release", "1.2.0", "--dry-run")
    assert code == 0, shown
    assert "a release was interrupted, so the recorded release is brought back first" in shown
    assert "goes live in green and replaces 1.0.0 in blue" in shown
    assert serves(uncommitted) == ("green", "1.1.0", ["blue", "green"])


def test_a_refusal_after_a_recovery_is_a_failure(uncommitted: Droplet) -> None:
    """A refusal after a recovery exits with 1, because exit code 2 would mean that nothing was changed."""
    uncommitted.docker.registry.clear()
    code, shown = stackctl(uncommitted, "release", "1.1.0")
    assert code == 1
    assert "cannot pull" in shown.splitlines()[-1]
    assert "Before that, the remains of an interrupted release were removed" in shown.splitlines()[-1]
    assert stackctl(uncommitted, "release", "1.1.0")[0] == 2


def test_a_recorded_release_needs_no_recovery(live: Droplet) -> None:
    assert settled(live, "release", "1.1.0") == (0, [])


def test_boot_without_a_release_starts_data(fresh: Droplet) -> None:
    stackctl(fresh, "halt")
    assert stackctl(fresh, "boot")[0] == 0
    assert {c["state"] for c in fresh.docker.of("bot-data")} == {"running"}
    assert fresh.docker.containers == fresh.docker.of("bot-data")


@pytest.mark.parametrize("verb", ["boot", "halt"])
def test_on_a_bare_droplet_there_is_nothing_to_do(fresh: Droplet, verb: str) -> None:
    fresh.paths.config.unlink()
    assert stackctl(fresh, verb)[0] == 0
    assert not fresh.calls


def test_boot_without_data_on_this_host(live: Droplet) -> None:
    live.paths.data_yaml.unlink()
    assert stackctl(live, "boot")[0] == 0
    assert not live.ran("bot-data")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"failing": {"--project-name bot-data": Result(1, stderr="bind source path does not exist")}}, "source path"),
        ({"app": {"ready": 200}, "data": "unhealthy"}, "redis is running, unhealthy (stackctl waited 20 s)"),
    ],
)
def test_boot_starts_what_it_can_and_then_fails(live: Droplet, broken: dict[str, Any], said: str) -> None:
    stackctl(live, "halt")
    live.failing = broken.get("failing", {})
    for container in live.docker.of("bot-data") if "data" in broken else []:
        container["health"] = "unhealthy"
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert said in shown.splitlines()[-1]
    assert live.docker.running() == ["blue"]


@pytest.mark.parametrize("lost", ["snapshot", "state"])
def test_boot_with_something_lost_says_what(live: Droplet, lost: str) -> None:
    release = state.load(live.paths).release
    assert release
    (live.paths.snapshot(release.id) if lost == "snapshot" else live.paths.state).unlink()
    code, shown = stackctl(live, "boot")
    assert code == 1
    assert ("is missing" if lost == "snapshot" else "does not name the release in blue") in shown.splitlines()[-1]


def test_data_is_stopped_even_when_the_app_does_not_end(live: Droplet) -> None:
    live.failing = {"docker stop -t": Result(1, stderr="it hangs")}
    code, shown = stackctl(live, "halt")
    assert code == 1
    for what in ("app", "worker"):
        assert f"{what}: a container doesn't stop: it hangs" in shown.splitlines()[-1]
    assert {c["state"] for c in live.docker.of("bot-data")} == {"exited"}
