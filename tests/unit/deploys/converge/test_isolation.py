"""An isolated droplet does nothing that others notice.

Only a promotion ends the isolation. An ordinary converge does not end it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import Host

from deploys.components.firewall import after_rules
from deploys.components.nginx import configuration
from deploys.components.stackctl import stackctl_config
from deploys.converge.isolation import with_isolation_of
from deploys.facts.stackctl import Isolated
from stackctl.app import state
from tests.support.fakes.droplet import CONFIG, Droplet, installed, stackctl
from tests.support.settings import settings_of


@pytest.fixture
def copy(tmp_path: Path) -> Droplet:
    return installed(tmp_path, isolated=True)


def isolate(droplet: Droplet, *, isolated: bool) -> None:
    droplet.paths.config.write_text(json.dumps(CONFIG | {"isolated": isolated}))


def status(droplet: Droplet) -> dict[str, Any]:
    return dict(json.loads(stackctl(droplet, "status", "--json")[1]))


def test_a_release_on_an_isolated_droplet_has_no_worker_and_no_webhook(copy: Droplet) -> None:
    assert stackctl(copy, "release", "1.0.0")[0] == 0
    assert copy.docker.running() == ["blue"]
    assert not copy.docker.of("bot-worker")
    assert not copy.ran("telegram ")
    report = status(copy)
    assert (report["isolated"], report["problems"], report["worker"]) == (True, [], None)
    assert "ISOLATED" in stackctl(copy, "status")[1]


def test_promoting_releases_the_live_tag_again(copy: Droplet) -> None:
    """A converge releases the live tag again if `stackctl status` reports drift."""
    stackctl(copy, "release", "1.0.0")
    isolate(copy, isolated=False)
    assert status(copy)["drift"] == [
        "worker has no container",
        "the webhook of the live release was not sent to Telegram",
    ]
    assert stackctl(copy, "release", "1.0.0")[0] == 0
    assert status(copy)["drift"] == []
    assert copy.telegram.webhook["url"] == "https://bot.lab.test/webhook"
    assert [container["state"] for container in copy.docker.of("bot-worker")] == ["running"]
    assert "ISOLATED" not in stackctl(copy, "status")[1]


def test_isolating_a_live_droplet_stops_its_worker(tmp_path: Path) -> None:
    droplet = installed(tmp_path)
    stackctl(droplet, "release", "1.0.0")
    isolate(droplet, isolated=True)
    assert status(droplet)["drift"] == ["worker is running, healthy though this droplet is isolated"]
    # If the droplet boots before the converge reaches the release, Docker restarts the former containers.
    assert stackctl(droplet, "boot")[0] == 0
    assert [container["state"] for container in droplet.docker.of("bot-worker")] == ["exited"]
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    assert not droplet.docker.of("bot-worker")
    assert state.load(droplet.paths).worker is None


@pytest.mark.parametrize(
    ("told", "is_one", "becomes"), [(None, False, False), (None, True, True), (True, False, True), (False, True, False)]
)
def test_a_droplet_stays_isolated_or_not_unless_it_is_told(told: bool | None, is_one: bool, becomes: bool) -> None:  # noqa: FBT001
    host = SimpleNamespace(get_fact=lambda fact, **_: {Isolated: is_one}[fact])
    settings = with_isolation_of(cast("Host", host), settings_of("prod", {"isolated": told}))
    assert settings.isolated == becomes
    assert json.loads(stackctl_config(settings, ["app"]))["isolated"] == becomes


@pytest.mark.parametrize("is_one", [True, False])
def test_the_droplet_records_whether_it_is_isolated(tmp_path: Path, *, is_one: bool) -> None:
    config = tmp_path / "stackctl.json"
    host = SimpleNamespace(get_fact=lambda *_, **__: is_one)
    settings = with_isolation_of(cast("Host", host), settings_of("prod"))
    config.write_bytes(stackctl_config(settings, ["app"]))
    assert Isolated().process(config.read_text().splitlines()) == is_one
    assert Isolated().process([]) is False, "a bare droplet is not isolated"


def test_nothing_leaves_the_app_s_network_and_that_rule_comes_first() -> None:
    host = SimpleNamespace(get_fact=lambda *_, **__: True)
    live = settings_of("prod")
    copy = with_isolation_of(cast("Host", host), live)
    for chain in ("DOCKER-USER", "FORWARD"):
        rules = _rules_of(chain, after_rules(copy))
        assert rules[0] == f"-A {chain} -s {live.values.app_subnet} -j DROP"
        assert rules[1:] == _rules_of(chain, after_rules(live))


def test_nginx_turns_everybody_away() -> None:
    host = SimpleNamespace(get_fact=lambda *_, **__: True)
    copy = with_isolation_of(cast("Host", host), settings_of("prod"))
    assert _bare_503(configuration(copy)) == 1
    assert _bare_503(configuration(settings_of("prod"))) == 0


def _rules_of(chain: str, after: bytes) -> list[str]:
    return [line for line in after.decode().splitlines() if line.startswith(f"-A {chain} ")]


def _bare_503(nginx: bytes) -> int:
    return nginx.decode().splitlines().count("        return 503;")
