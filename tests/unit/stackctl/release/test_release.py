"""A release refuses bad requests before its first step, runs its steps in order, and records the result."""

import json
import re
from pathlib import Path

import pytest

from stackctl.app import state
from stackctl.app.app_env import canonical, env_sha256
from stackctl.release import release
from tests.support.fakes.declared import REPOSITORY
from tests.support.fakes.droplet import ENVIRONMENT, Droplet, installed, stackctl
from tests.support.releases import ENDED, ids


def test_the_first_release_serves_in_blue(fresh: Droplet) -> None:
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 0, shown
    current = state.load(fresh.paths)
    assert current.active == "blue"
    assert current.release
    assert current.release.image == f"{REPOSITORY}@sha256:1.0.0"
    assert current.release.env_sha256 == env_sha256(ENVIRONMENT)
    assert ids(fresh) == {current.release.id}
    assert fresh.paths.active.readlink() == Path("blue.sock")
    assert fresh.paths.snapshot(current.release.id).read_bytes() == canonical(ENVIRONMENT)
    assert fresh.paths.snapshot(current.release.id).stat().st_mode & 0o777 == 0o600


def test_a_first_release_of_an_app_without_a_worker_speaks_of_no_other(tmp_path: Path) -> None:
    fresh = installed(tmp_path, worker=False)
    _, planned = stackctl(fresh, "release", "1.0.0", "--dry-run")
    _, shown = stackctl(fresh, "release", "1.0.0")
    for untrue in ("keeps running", "the worker is replaced", "and replaces", "kept for a rollback"):
        assert untrue not in planned + shown
    assert "1.0.0 (registry.lab.test/bot@sha256:1.0.0) goes live in blue as the first release" in planned
    ended = [line.split(maxsplit=2)[2] for line in shown.splitlines() if re.search("(worker|drain|stop) +done", line)]
    assert [line.rpartition(" (")[0] for line in ended] == [
        "worker     done the app has no worker",
        "drain      done no release was live before",
        "stop       done no release was live before",
    ]


def test_the_next_release_takes_the_other_colour_and_ends_the_old_one(live: Droplet) -> None:
    assert stackctl(live, "release", "1.1.0")[0] == 0
    assert state.load(live.paths).active == "green"
    assert live.docker.running() == ["green"]
    assert [c["state"] for c in live.docker.of("bot-blue")] == ["exited"]
    assert live.systemd.units == {"bot-green.socket"}
    blue = state.load(live.paths).colours["blue"]
    assert blue
    assert blue.id in ids(live)


def test_the_order_of_a_release(live: Droplet) -> None:
    """A release changes nothing of the old colour before the flip."""
    stackctl(live, "release", "1.1.0")
    words = [
        "docker pull",
        " tag ",
        "schema --json",
        "pg_dump ",
        "POST green.sock /webhook",
        "bot-worker --file",
        "stop --no-block bot-blue.socket",
        "image ls",
        "telegram getWebhookInfo",
    ]
    positions = [max(i for i, call in enumerate(live.calls) if word in " ".join(call)) for word in words]
    assert positions == sorted(positions)


def test_every_event_is_a_line_of_history_and_of_the_terminal(fresh: Droplet) -> None:
    _, shown = stackctl(fresh, "release", "1.0.0")
    events = [json.loads(line) for line in fresh.paths.history.read_text().splitlines()]
    assert len(events) == len(shown.splitlines())
    assert all(event.keys() >= {"ts", "run", "op", "step", "state", "ms", "message"} for event in events)
    done = [event["step"] for event in events if event["state"] == "done"]
    assert done == [*(step.name for step in release.STEPS), "release"]
    assert (events[0]["by"], events[0]["tag"], events[-1]["code"]) == ("root", "1.0.0", 0)


def test_it_starts_anew_with_a_changed_environment_while_the_registry_is_gone(live: Droplet) -> None:
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, "LOG_LEVEL": "DEBUG"}))
    live.docker.registry.clear()
    code, shown = stackctl(live, "release", "1.0.0")
    assert code == 0, shown
    assert "manifest unknown" in shown
    assert json.loads(stackctl(live, "status", "--json")[1])["environment_differs"] is False


def test_without_migrations_none_are_run(tmp_path: Path) -> None:
    fresh = installed(tmp_path, migrate=False)
    assert stackctl(fresh, "release", "1.0.0")[0] == 0
    assert not fresh.ran(" run ")


@pytest.mark.parametrize("broken", ["postgres", "redis"])
def test_it_is_refused_while_data_is_not_well(fresh: Droplet, broken: str) -> None:
    next(c for c in fresh.docker.containers if c["service"] == broken)["health"] = "unhealthy"
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 2
    assert f"not healthy: {broken}" in shown


def test_another_major_version_of_postgresql_is_refused(tmp_path: Path) -> None:
    """data.yaml declares another major version of PostgreSQL, which the converge has not started yet."""
    fresh = installed(tmp_path)
    declared = json.loads(fresh.paths.config.read_text())
    declared["data"]["major"] = 18
    fresh.paths.config.write_text(json.dumps(declared))
    code, shown = stackctl(fresh, "release", "1.0.0")
    assert code == 2
    assert "PostgreSQL 17 is running, but 18 is declared. Next: converge the site (make site)" in shown.splitlines()[-1]
    assert not fresh.ran("docker pull")


def test_data_on_another_host_is_not_looked_for(tmp_path: Path) -> None:
    fresh = installed(tmp_path, data=None)
    fresh.docker.containers.clear()
    assert stackctl(fresh, "release", "1.0.0")[0] == 0


@pytest.mark.parametrize("content", [b"{", b'{"COMPOSE_FILE": "/tmp/x"}', b'{"A": 1}', None])
def test_a_bad_environment_is_refused(fresh: Droplet, content: bytes | None) -> None:
    if content is None:
        fresh.paths.next_environment.unlink()
    else:
        fresh.paths.next_environment.write_bytes(content)
    assert stackctl(fresh, "release", "1.0.0")[0] == 2
    assert not fresh.ran("docker ")


def test_secrets_of_releases_that_are_kept_are_masked_though_the_declared_ones_have_changed(live: Droplet) -> None:
    """Secrets of kept releases are masked, because logs may contain them.

    The fake droplet checks the output for secrets.
    """
    changed = {name: f"another-{value}" for name, value in ENVIRONMENT.items() if name == "TOKEN"}
    live.paths.next_environment.write_bytes(canonical({**ENVIRONMENT, **changed}))
    live.docker.new_containers = {"web": ENDED}
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 1
    assert re.search(r"\| log of web\d+: \*\*\*$", shown, re.MULTILINE)
    assert "s3cr3t" not in shown
