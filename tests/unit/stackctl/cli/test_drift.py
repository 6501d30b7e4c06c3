"""If containers differ from what is declared, status reports the difference, and a release corrects it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical
from stackctl.app.state import Webhook
from stackctl.core import lock
from stackctl.core.program import Result
from tests.support.fakes.droplet import CONFIG, ENVIRONMENT, Droplet, stackctl
from tests.support.status import status, web, worker

UNTOLD = "the webhook of the live release was not sent to Telegram"


def lose_the_snapshot(droplet: Droplet) -> None:
    release = state.load(droplet.paths).release
    assert release
    droplet.paths.snapshot(release.id).unlink()


def tell_telegram(droplet: Droplet, webhook: Webhook | None) -> None:
    state.save(droplet.paths, replace(state.load(droplet.paths), webhook=webhook))


DRIFT: dict[str, tuple[Callable[[Droplet], Any], str]] = {
    "stopped": (lambda d: web(d).update(state="exited", exit_code=137), "web is exited (exit code 137)"),
    "missing": (lambda d: d.docker.containers.remove(web(d)), "web has no container"),
    "unhealthy": (lambda d: web(d).update(health="unhealthy"), "web is running, unhealthy"),
    "another image": (lambda d: web(d).update(image="evil"), "web runs another image than the live release: evil"),
    "worker missing": (lambda d: d.docker.containers.remove(worker(d)), "worker has no container"),
    "worker ended": (lambda d: worker(d).update(state="exited", exit_code=3), "worker is exited (exit code 3)"),
    "worker unhealthy": (lambda d: worker(d).update(health="unhealthy"), "worker is running, unhealthy"),
    "socket closed": (lambda d: d.systemd.units.clear(), "bot-blue.socket is not active"),
    "snapshot lost": (lose_the_snapshot, "the record of the release in blue is lost"),
    "state lost": (lambda d: d.paths.state.unlink(), "the record of the release in blue is lost"),
    "interrupted": (
        lambda d: d.docker.create("bot-green", "web", "data", {}),
        "green still runs, because a release was interrupted",
    ),
    "webhook not told": (lambda d: tell_telegram(d, None), UNTOLD),
    "webhook elsewhere": (lambda d: tell_telegram(d, Webhook("https://bot.lab.test/webhook", "x")), UNTOLD),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_reported_and_a_release_mends_it(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    code, report = status(live)
    assert (code, report["drift"]) == (4, [line])
    assert [problem for problem in report["problems"] if problem.startswith(line)]
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[0] == 0


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda d: d.paths.app_yaml.write_text("x"), ["web", "worker"]),
        (lambda d: d.paths.worker_yaml.write_text("x"), ["web", "worker"]),
        (lambda d: web(d).update(sha256="x"), ["web"]),
        (lambda d: worker(d).update(sha256="x"), ["worker"]),
    ],
)
def test_what_was_made_from_something_else_is_stale(
    live: Droplet, change: Callable[[Droplet], Any], stale: list[str]
) -> None:
    change(live)
    code, report = status(live)
    assert (code, report["drift"], report["stale"]) == (4, [], stale)
    assert [problem.split()[0] for problem in report["problems"]] == stale
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[1]["stale"] == []


def test_a_link_that_is_gone_is_not_taken_for_no_release(live: Droplet) -> None:
    live.paths.active.unlink()
    code, report = status(live)
    assert (code, report["release"]) == (4, None)
    assert report["problems"] == ["1.0.0 in blue isn't live. Next: sudo stackctl release 1.0.0"]
    assert stackctl(live, "release", "1.0.0")[0] == 0
    assert status(live)[0] == 0


DURING_A_RELEASE = [
    "interrupted",
    "worker missing",
    "worker ended",
    "worker unhealthy",
    "webhook not told",
    "webhook elsewhere",
]


@pytest.mark.parametrize("name", DURING_A_RELEASE)
def test_changes_of_a_running_release_are_no_drift(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    with lock.exclusive(live.paths.work, "ada's release", 0):
        code, report = status(live)
    assert (code, report["drift"], report["lock"]["holder"]) == (0, [], "ada's release")
    with lock.exclusive(live.paths.lock, "ada's converge", 0):
        assert status(live)[1]["drift"] == [line]


@pytest.mark.parametrize("name", [name for name in DRIFT if name not in DURING_A_RELEASE])
def test_a_failure_during_a_release_is_drift_all_the_same(live: Droplet, name: str) -> None:
    drift, line = DRIFT[name]
    drift(live)
    with lock.exclusive(live.paths.work, "ada's release", 0):
        assert status(live)[1]["drift"] == [line]


def test_a_killed_release_is_reported_even_if_it_serves(uncommitted: Droplet) -> None:
    code, report = status(uncommitted)
    assert (code, report["drift"]) == (4, ["blue still runs, because a release was interrupted"])


def test_a_webhook_that_could_not_be_set_is_drift_until_the_next_release(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "TELEGRAM_WEBHOOK_SECRET": "webhook-secret-2"}))
    live.failing = {"telegram": Result(1)}
    assert stackctl(live, "release", "1.1.0")[0] == 4
    assert status(live)[1]["drift"] == [UNTOLD]
    live.failing = {}
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert status(live)[1]["drift"] == []


def test_an_app_without_telegram_tells_it_nothing(live: Droplet) -> None:
    tell_telegram(live, None)
    live.paths.config.write_text(json.dumps(CONFIG | {"webhook_path": None}))
    code, report = status(live)
    assert (code, report["drift"]) == (0, [])


@pytest.mark.parametrize("which", [web, worker])
def test_a_container_that_starts_is_no_drift(live: Droplet, which: Callable[[Droplet], dict[str, Any]]) -> None:
    which(live)["health"] = "starting"
    assert status(live)[1]["drift"] == []
    which(live)["state"] = "exited"  # the container ends during the release
    assert len(status(live)[1]["drift"]) == 1


def test_a_changed_declaration_is_reported(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "NEW": "1"}))
    code, report = status(live)
    assert (code, report["environment_differs"], report["drift"]) == (4, True, [])


def test_unwell_data_is_a_problem_and_no_drift(live: Droplet) -> None:
    live.docker.containers = [c for c in live.docker.containers if c["service"] != "redis"]
    code, report = status(live)
    assert (code, report["drift"]) == (4, [])
    assert report["problems"] == ["redis has no container. Next: sudo systemctl restart bot.service"]


def test_data_that_starts_is_no_problem(live: Droplet) -> None:
    for container in live.docker.of("bot-data"):
        container["health"] = "starting"
    assert status(live)[0] == 0


def test_without_docker_status_still_answers(live: Droplet) -> None:
    live.failing = {"docker ps": Result(1, stderr="Cannot connect to the Docker daemon")}
    code, report = status(live)
    assert (code, report["drift"], report["active"]) == (4, [], "blue")
    assert "Cannot connect to the Docker daemon. Next: systemctl status docker" in report["problems"][0]
