"""`logs` and `exec` choose the right container and call Docker with the right arguments."""

from pathlib import Path

import pytest

from tests.support.fakes.droplet import Droplet, installed, stackctl


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    """Make 1.1.0 live in green, with 1.0.0 kept in blue."""
    droplet = installed(tmp_path)
    for tag in ("1.0.0", "1.1.0"):
        assert stackctl(droplet, "release", tag)[0] == 0
    return droplet


def became(droplet: Droplet, *arguments: str) -> list[str]:
    """Return the command with which stackctl replaced its own process."""
    with pytest.raises(SystemExit):
        stackctl(droplet, *arguments)
    return droplet.calls[-1]


def shown(droplet: Droplet, *arguments: str) -> list[str]:
    """Return the command whose output `stackctl logs` shows."""
    assert stackctl(droplet, "logs", *arguments) == (0, "")
    return droplet.calls[-1]


@pytest.mark.parametrize(
    ("service", "project"),
    [("web", "bot-green"), ("worker", "bot-worker"), ("postgres", "bot-data"), ("redis", "bot-data")],
)
def test_logs_are_those_of_the_live_release_and_of_data(live: Droplet, service: str, project: str) -> None:
    (container,) = (one for one in live.docker.of(project) if one["service"] == service)
    assert shown(live, service) == ["docker", "logs", "--tail", "100", container["id"]]


def test_logs_are_the_web_s_as_many_as_asked_and_go_on_where_that_is_asked(live: Droplet) -> None:
    web = live.docker.of("bot-green")[0]["id"]
    assert shown(live) == ["docker", "logs", "--tail", "100", web]
    assert shown(live, "-f", "-n", "5") == ["docker", "logs", "--tail", "5", "--follow", web]


def test_a_command_runs_in_the_live_web_container_with_its_own_options(live: Droplet) -> None:
    web = live.docker.of("bot-green")[0]["id"]
    ran = became(live, "exec", "python", "--version", "-n", "5")
    assert ran == ["docker", "exec", "--interactive", web, "python", "--version", "-n", "5"]


def test_the_sign_that_no_option_follows_is_none_of_the_command(live: Droplet) -> None:
    web = live.docker.of("bot-green")[0]["id"]
    assert became(live, "exec", "--", "env", "-0") == ["docker", "exec", "--interactive", web, "env", "-0"]
    assert became(live, "exec", "--", "--", "env")[4:] == ["--", "env"]
    assert stackctl(live, "exec", "--")[0] == 2


def test_exec_has_a_terminal_if_there_is_one(live: Droplet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert became(live, "exec", "bash")[:4] == ["docker", "exec", "--interactive", "--tty"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["exec"], "no command was given. Next: stackctl exec python --version, for example"),
        (["exec", "bash"], "no release yet. Next: stackctl release TAG"),
        (["logs"], "no release yet. Next: stackctl release TAG"),
        (["logs", "worker"], "worker has no container. Next: stackctl status"),
    ],
)
def test_a_missing_container_is_refused_with_the_next_step(tmp_path: Path, asked: list[str], said: str) -> None:
    droplet = installed(tmp_path)
    code, shown = stackctl(droplet, *asked)
    assert (code, said in shown) == (2, True)
    assert not droplet.paths.history.exists()
